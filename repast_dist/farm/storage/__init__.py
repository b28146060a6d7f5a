"""Copies of run directories on S3, Google Cloud Storage or a shared disk.

A run works in a local directory, since it needs locks, renames and open streams. What it has saved
is copied to a *prefix* of a store::

    files/result.0f3a....json               a file; its name has a part of its SHA-256
    files/trace/steps-....5b1c....parquet
    manifests/00000001-00000007.json        all files of a copy, size and SHA-256; written last
    leases/OWNER.json                       who writes here; renewed while the run goes on

A reader takes the newest manifest that is whole. Whatever moment a run is killed at, the files of
the newest manifest are all there: they had arrived before it was written, and nothing is written
over them.
"""
