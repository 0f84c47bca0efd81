"""Builds benchrouter._core with CMake; everything else is said in pyproject.toml."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


class CMakeBuild(build_ext):
    """Configures and builds CMakeLists.txt into the folder where setuptools wants the module."""

    def build_extension(self, ext: Extension) -> None:
        """Build one extension module."""
        import pybind11

        folder = Path(self.get_ext_fullpath(ext.name)).resolve().parent
        build = Path(self.build_temp).resolve() / "cmake"
        build.mkdir(parents=True, exist_ok=True)
        # It may name a ninja and a pybind11 of a build environment that has been deleted since.
        (build / "CMakeCache.txt").unlink(missing_ok=True)
        configure = [
            "cmake",
            f"-S{ROOT}",
            f"-B{build}",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={folder}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            "-DPYBIND11_FINDPYTHON=ON",
            "-DCMAKE_BUILD_TYPE=Release",
        ]
        if shutil.which("ninja"):
            configure.append("-GNinja")
        if cuda := os.environ.get("BENCHROUTER_CUDA"):  # AUTO, ON or OFF
            configure.append(f"-DBENCHROUTER_CUDA={cuda}")
        configure += os.environ.get("CMAKE_ARGS", "").split()
        subprocess.run(configure, check=True)
        subprocess.run(["cmake", "--build", str(build), "--parallel", "2"], check=True)


setup(ext_modules=[Extension("benchrouter._core", sources=[])], cmdclass={"build_ext": CMakeBuild})
