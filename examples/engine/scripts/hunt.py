"""Hunters: ahead of where their neighbours are going."""

import math


def decide(agents, steering, frame):
    wishes = []
    for x, y, vx, vy, near_x, near_y, mean_vx, mean_vy in agents.tolist():
        ahead_x, ahead_y = near_x + 8 * mean_vx, near_y + 8 * mean_vy
        distance = math.hypot(ahead_x, ahead_y) or 1.0
        wishes.append((0.25 * ahead_x / distance - 0.05 * vx, 0.25 * ahead_y / distance - 0.05 * vy))
    steering[:] = wishes
