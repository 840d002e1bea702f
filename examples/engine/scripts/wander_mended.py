"""Wanderers as they should have been: each in a direction of its own."""

import math


def decide(agents, steering, frame):
    wishes = []
    size = len(agents)
    for number, (x, y, vx, vy, near_x, near_y, mean_vx, mean_vy) in enumerate(agents.tolist()):
        heading = math.tau * number / size + 0.01 * frame
        wishes.append((0.1 * math.cos(heading) - 0.1 * vx, 0.1 * math.sin(heading) - 0.1 * vy))
    steering[:] = wishes
