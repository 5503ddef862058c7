"""`python -m ofa_pose` is the command line."""

from ofa_pose.cli import main

main()
