"""What lies in a workdir or a bucket: claims, rows, checkpoints, parameter files, origins."""
