"""The door in Python: what ``import repast_dist as rd`` offers."""
