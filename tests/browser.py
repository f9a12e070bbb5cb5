"""Pages in a browser, where there is one."""

import shutil
import subprocess

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)


def browse(path, profile, *options) -> str:
    """Returns what Chromium prints of a page."""
    command = [
        *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--disable-quic", "--disable-dev-shm-usage", "--hide-scrollbars"),
        *(f"--user-data-dir={profile}", *options, path.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
