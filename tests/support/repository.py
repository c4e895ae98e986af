"""Real git repositories for tests: made in a temporary directory, independent of the settings of who runs the suite."""

import os
import shutil
import subprocess
from pathlib import Path

SETTINGS = {
    "user.name": "Ada",
    "user.email": "ada@example.org",
    "commit.gpgsign": "false",
    "init.defaultBranch": "main",
    "protocol.file.allow": "always",
}


def settings() -> dict[str, str]:
    """An environment in which git reads these settings and no others."""
    numbered = {
        f"GIT_CONFIG_{part}_{number}": text
        for number, pair in enumerate(SETTINGS.items())
        for part, text in zip(("KEY", "VALUE"), pair, strict=True)
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    alone = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_COUNT": str(len(SETTINGS))}
    return {**kept, **alone, **numbered}


class Repository:
    """A repository with a working tree."""

    def __init__(self, top: Path) -> None:
        self.top = top

    @classmethod
    def made(cls, top: Path) -> "Repository":
        """A new one, without a commit."""
        top.mkdir(parents=True)
        repository = cls(top.resolve())
        repository.git("init", "--quiet")
        return repository

    @classmethod
    def cloned(cls, source: "Repository", top: Path, *options: str) -> "Repository":
        """A clone over the file protocol, as a remote repository is cloned."""
        source.git("clone", "--quiet", *options, source.top.as_uri(), str(top))
        return cls(top.resolve())

    def copied(self, top: Path) -> "Repository":
        """A copy, file by file."""
        return Repository(Path(shutil.copytree(self.top, top, symlinks=True)).resolve())

    def git(self, *arguments: str) -> str:
        """Run git here; returns what it prints."""
        command = ["git", "-C", str(self.top), *arguments]
        process = subprocess.run(command, env=settings(), capture_output=True, encoding="utf-8", check=False)
        assert process.returncode == 0, process.stderr
        return process.stdout.strip()

    def write(self, files: dict[str, str]) -> None:
        """Write files without committing them."""
        for name, content in files.items():
            file = self.top / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content, encoding="utf-8")

    def commit(self, files: dict[str, str], message: str = "A change") -> str:
        """Commit these files; returns the commit's hash."""
        self.write(files)
        if files:
            self.git("add", "--all", "--", *files)
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def worktrees(self) -> list[Path]:
        """The worktrees that git knows, the main one first."""
        lines = self.git("worktree", "list", "--porcelain").splitlines()
        return [Path(line.removeprefix("worktree ")) for line in lines if line.startswith("worktree ")]
