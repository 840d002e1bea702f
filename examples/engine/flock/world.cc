#include "world.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

namespace flock {
namespace {

constexpr float kTopSpeed = 1.5f;

// Into [0, size).
float Wrap(float value, float size) {
  value = std::fmod(value, size);
  return value < 0 ? value + size : value;
}
// The shorter way round: into [-size / 2, size / 2].
float Shorter(float distance, float size) {
  if (distance > size / 2) return distance - size;
  return distance < -size / 2 ? distance + size : distance;
}

}  // namespace

World::World(std::span<Agent> agents, std::span<Steering> steering)
    : agents_(agents), steering_(steering), cells_(static_cast<size_t>(kCells) * kCells) {
  std::mt19937 random(1);
  const auto between = [&](float low, float high) {
    return low + (high - low) * static_cast<float>(random() % 65536) / 65536.0f;
  };
  for (Agent& agent : agents_) {
    agent = {between(0, kSize), between(0, kSize), between(-1, 1), between(-1, 1), 0, 0, 0, 0};
  }
  std::fill(steering_.begin(), steering_.end(), Steering{0, 0});
}

size_t World::CellOf(float x, float y) {
  const auto part = [](float at) { return std::clamp(static_cast<int>(at / kCellSize), 0, kCells - 1); };
  return static_cast<size_t>(part(y)) * kCells + static_cast<size_t>(part(x));
}

void World::FillCells() {
  std::fill(cells_.begin(), cells_.end(), Cell());
  for (const Agent& agent : agents_) {
    Cell& cell = cells_[CellOf(agent.x, agent.y)];
    cell.x += agent.x;
    cell.y += agent.y;
    cell.vx += agent.vx;
    cell.vy += agent.vy;
    ++cell.count;
  }
}

// Looks at the nine cells around.
void World::Look(Agent& agent) const {
  float x = 0, y = 0, vx = 0, vy = 0;
  int count = 0;
  for (int row = -1; row <= 1; ++row) {
    for (int column = -1; column <= 1; ++column) {
      const Cell& cell = cells_[CellOf(Wrap(agent.x + static_cast<float>(column) * kCellSize, kSize),
                                       Wrap(agent.y + static_cast<float>(row) * kCellSize, kSize))];
      if (cell.count == 0) continue;
      const auto members = static_cast<float>(cell.count);
      x += Shorter(cell.x / members - agent.x, kSize) * members;
      y += Shorter(cell.y / members - agent.y, kSize) * members;
      vx += cell.vx;
      vy += cell.vy;
      count += cell.count;
    }
  }
  const float share = count == 0 ? 0 : 1 / static_cast<float>(count);
  agent.near_x = x * share;
  agent.near_y = y * share;
  agent.mean_vx = vx * share;
  agent.mean_vy = vy * share;
}

void World::Perceive() {
  FillCells();
  for (Agent& agent : agents_) Look(agent);
}

void World::Move() {
  for (size_t i = 0; i < agents_.size(); ++i) {
    Agent& agent = agents_[i];
    agent.vx += steering_[i].ax;
    agent.vy += steering_[i].ay;
    const float speed = std::hypot(agent.vx, agent.vy);
    if (speed > kTopSpeed) {
      agent.vx *= kTopSpeed / speed;
      agent.vy *= kTopSpeed / speed;
    }
    agent.x = Wrap(agent.x + agent.vx, kSize);
    agent.y = Wrap(agent.y + agent.vy, kSize);
  }
}

uint64_t World::Fingerprint() const {
  uint64_t hash = 1469598103934665603u;  // FNV-1a
  for (const Agent& agent : agents_) {
    unsigned char bytes[sizeof(Agent)];
    std::memcpy(bytes, &agent, sizeof(agent));
    for (unsigned char byte : bytes) hash = (hash ^ byte) * 1099511628211u;
  }
  return hash;
}

}  // namespace flock
