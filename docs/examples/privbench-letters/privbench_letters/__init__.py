"""Components for privbench: letters, random erasing, impostors, diversity."""
