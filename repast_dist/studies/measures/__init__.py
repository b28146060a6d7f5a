"""What a sweep can measure at each of its points, one file each."""
