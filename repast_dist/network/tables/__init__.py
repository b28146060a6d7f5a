"""Layer tables of published networks: one file each."""

from repast_dist.network.tables.base import NETWORKS, NetworkTable, network_table

__all__ = ["NETWORKS", "NetworkTable", "network_table"]
