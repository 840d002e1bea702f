"""Followers: towards the middle of their neighbours, at their speed."""


def decide(agents, steering, frame):
    wishes = []
    for x, y, vx, vy, near_x, near_y, mean_vx, mean_vy in agents.tolist():
        wishes.append((0.03 * near_x + 0.12 * (mean_vx - vx), 0.03 * near_y + 0.12 * (mean_vy - vy)))
    steering[:] = wishes
