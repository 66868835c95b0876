"""scripts/install_packages names what is missing where it cannot install it."""
import os
import shutil
import subprocess
import unittest

from support import REPOSITORY, Case


class InstallPackages(Case):
    def run_with(self, *tools, **scripts):
        """Runs it seeing nothing but the tools named, and scripts of the given text in place of others."""
        for name in ("bash", "dirname", "grep", "sed", "echo", *tools):
            os.symlink(shutil.which(name), self.dir / name)
        for name, text in scripts.items():
            path = self.dir / name.replace("_", "-")
            path.write_text("#!/bin/bash\n" + text)
            path.chmod(0o755)
        return subprocess.run([shutil.which("bash"), REPOSITORY / "scripts" / "install_packages"], env={"PATH": str(self.dir)}, capture_output=True, text=True)

    def test_not_debian(self):
        result = self.run_with("cmake", "python3")
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertRegex(result.stderr, r"Missing.*: build-essential ninja-build.* libtbb-dev")
        self.assertNotRegex(result.stderr, r"[: ](cmake|python3)\b")

    def test_debian_without_root_or_sudo(self):
        result = self.run_with(dpkg_query='[ "$4" = libcli11-dev ] || [ "$3" = libcli11-dev ] || echo "install ok installed"', id="echo 1000")
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertIn("Missing packages: libcli11-dev", result.stderr)
        self.assertIn("apt-get install libcli11-dev", result.stderr)

    def test_nothing_to_do(self):
        result = self.run_with(dpkg_query='echo "install ok installed"')
        self.assertEqual((result.returncode, result.stdout, result.stderr), (0, "", ""))


if __name__ == "__main__":
    unittest.main()
