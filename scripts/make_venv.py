"""Make a virtual environment with pip, also where Debian left ensurepip out: `scripts/make_venv.py .venv`.

Runs before anything is installed, so it uses the standard library alone. Where ensurepip is missing, pip
comes from the pip of the system or else from Debian's package of it, which is unpacked in a temporary folder.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

OLDEST = (3, 11)
DEBIAN_PIP = "python3-pip-whl"


def main() -> None:
    """Make sys.argv[1] an environment whose pip works; one that does already stays as it is."""
    venv = Path(sys.argv[1])
    if sys.version_info < OLDEST:
        version = ".".join(str(part) for part in sys.version_info[:3])
        stop(f"{sys.executable} is Python {version}; 3.11 or later is needed", "make PYTHON=python3.11 ...")
    if has_pip(venv):
        return
    if venv.exists() and not (venv / "pyvenv.cfg").is_file():
        stop(f"{venv} is there and is not a virtual environment", f"move it away: mv {venv} {venv}.old")
    print(f"Making {venv} with Python {sys.version.split()[0]}", flush=True)
    make = [sys.executable, "-m", "venv", "--clear"]
    if succeeds([*make, str(venv)]):
        return
    subprocess.run([*make, "--without-pip", str(venv)], check=True)
    if not (pip_from_system(venv) or pip_from_debian(venv)):
        shutil.rmtree(venv)
        package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
        stop(f"{sys.executable} cannot make environments with pip", f"sudo apt-get install {package}")


def has_pip(venv: Path) -> bool:
    """Whether the environment exists and its pip runs."""
    return succeeds([str(venv / "bin" / "python"), "-m", "pip", "--version"])


def pip_from_system(venv: Path) -> bool:
    """Let the pip of the system, 22.3 or later, install one into the environment."""
    python = str(venv / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "pip"]
    return succeeds(pip) and has_pip(venv)


def pip_from_debian(venv: Path) -> bool:
    """Fetch Debian's signed package of pip without installing it; apt-get can do that for any user."""
    with tempfile.TemporaryDirectory() as folder:
        fetch = ["apt-get", "download", "-qq", DEBIAN_PIP]
        if not succeeds(fetch, folder):
            # A container image comes without package lists, and only root can get those.
            succeeds(["apt-get", "update", "-qq"])
            succeeds(fetch, folder)
        for package in Path(folder).glob("*.deb"):
            succeeds(["dpkg", "-x", str(package), folder])
        python = str((venv / "bin" / "python").absolute())
        return any(
            succeeds([python, str(wheel / "pip"), "install", "--quiet", "--no-index", str(wheel)])
            for wheel in Path(folder).glob("usr/share/python-wheels/pip-*.whl")
        )


def succeeds(command: list[str], folder: str = ".") -> bool:
    """Whether the command exists and exits with 0; what it says is dropped."""
    try:
        return subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def stop(message: str, hint: str) -> None:
    """Say what is wrong and what to do, and exit with 2."""
    print(f"error: {message}\nhint: {hint}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
