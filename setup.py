"""Metadata of the package; tool settings are in pyproject.toml."""

import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(
    r'__version__ = "(.+?)"', (ROOT / "tfadv" / "__init__.py").read_text()
).group(1)

TEST = ["pytest>=8.0", "pytest-timeout>=2.3", "pytest-xdist>=3.5"]

setup(
    name="tfadv",
    version=VERSION,
    description="Adversarially robust image classifiers for TensorFlow 2 / Keras 3",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["tfadv", "tfadv.*"]),
    package_data={"tfadv.report.html": ["style.css"]},
    # tensorflow has no wheels for 3.14, keras 3.15 none below 3.11.
    python_requires=">=3.11,<3.14",
    install_requires=[
        "absl-py>=2.1",
        "array_record>=0.8",
        "h5py>=3.11",
        # Writing TFDS data needs it, and tensorflow-datasets does not bring it.
        "importlib_resources>=6.0",
        "keras>=3.15,<3.16",
        "keras-cv>=0.9",
        "matplotlib>=3.8",
        "numpy>=1.26",
        "pillow>=10",
        "scikit-learn>=1.4",
        "scipy>=1.11",
        "tensorboard>=2.18",
        "tensorflow>=2.21,<2.22",
        "tensorflow-datasets>=4.9.9",
        "tqdm>=4.66",
    ],
    extras_require={
        "test": TEST,
        "dev": [*TEST, "ruff>=0.8"],
    },
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
