"""fsck: every invariant over everything on disk. Reads only; works beside a running host, from any process."""
