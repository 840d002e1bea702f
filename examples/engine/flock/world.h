// World: some thousand agents on a torus, in four groups.  The physics is here; what an agent wants is decided by Decider.
//
// A frame: Perceive() fills `agents`, somebody fills `steering`, Move() applies it.  Both arrays may lie anywhere: in shared
// memory when workers decide, in plain memory when an interpreter in this process does.

#ifndef PYHOST_EXAMPLES_ENGINE_FLOCK_WORLD_H_
#define PYHOST_EXAMPLES_ENGINE_FLOCK_WORLD_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace flock {

// What a script sees of an agent, and what it answers: rows of the arrays.
struct Agent {
  float x, y, vx, vy;
  float near_x, near_y;    // from here to the middle of its neighbours
  float mean_vx, mean_vy;  // their velocity
};
struct Steering {
  float ax, ay;
};
inline constexpr int64_t kAgentColumns = sizeof(Agent) / sizeof(float);
inline constexpr int64_t kSteeringColumns = sizeof(Steering) / sizeof(float);

class World {
 public:
  // `agents` and `steering` have one row an agent; they are the world's until it ends.
  World(std::span<Agent> agents, std::span<Steering> steering);

  void Perceive();
  void Move();
  // Equal for worlds that are equal to the last bit.
  uint64_t Fingerprint() const;

 private:
  static constexpr int kCells = 64;  // a side
  static constexpr float kCellSize = 4.0f;
  static constexpr float kSize = kCells * kCellSize;

  struct Cell {
    float x = 0, y = 0, vx = 0, vy = 0;
    int count = 0;
  };
  static size_t CellOf(float x, float y);
  void FillCells();
  void Look(Agent& agent) const;

  std::span<Agent> agents_;
  std::span<Steering> steering_;
  std::vector<Cell> cells_;
};

}  // namespace flock

#endif  // PYHOST_EXAMPLES_ENGINE_FLOCK_WORLD_H_
