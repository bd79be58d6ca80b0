from setuptools import find_packages, setup

setup(
    name="boskel",
    version="1.0.0",
    package_dir={"": "src"},
    packages=find_packages("src"),
    install_requires=["tabulate"],
    entry_points={"console_scripts": ["boskel = boskel:main"]},
)
