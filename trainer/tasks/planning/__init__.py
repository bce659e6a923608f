"""What a step will need of each device, told before there is one."""
