#!/bin/sh
# Stands in for the gateway in the kit's own tests: does what the variable says, with the gateway's arguments.
eval "$STAND_IN_SCRIPT"
