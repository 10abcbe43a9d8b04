"""Fuzzing of the importers, run by `make fuzz`; needs atheris, which is no dependency of the tests.

Belongs here: what must hold of any bytes (`properties`), how inputs are varied (`mutation`), the run (`fuzz_importers`).
Does not belong here: what was found; each finding is a regression test in `test_fuzz_findings`.
"""
