"""The feature cache: sharded Zarr stores that are whole or refused."""
