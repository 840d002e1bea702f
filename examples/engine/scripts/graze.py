"""Grazers: slow, and as far from the crowd as they can get."""


def decide(agents, steering, frame):
    """One row of `agents` for each agent of the group: x, y, its velocity, the way to its neighbours' middle, their velocity.
    One row of `steering`: the acceleration that it wants."""
    wishes = []
    for x, y, vx, vy, near_x, near_y, mean_vx, mean_vy in agents.tolist():
        crowded = near_x * near_x + near_y * near_y < 4.0
        away = -0.08 if crowded else 0.01
        wishes.append((away * near_x - 0.2 * vx, away * near_y - 0.2 * vy))
    steering[:] = wishes
