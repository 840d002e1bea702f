// Decider: who fills the steering of all agents, frame by frame.

#ifndef PYHOST_EXAMPLES_ENGINE_FLOCK_DECIDER_H_
#define PYHOST_EXAMPLES_ENGINE_FLOCK_DECIDER_H_

#include <span>
#include <string>

#include "world.h"

namespace flock {

// The groups' scripts, in the order of their agents: each has a quarter.
inline constexpr const char* kScripts[] = {"graze", "follow", "hunt", "wander"};
inline constexpr size_t kGroups = std::size(kScripts);

class Decider {
 public:
  virtual ~Decider() = default;
  virtual std::span<Agent> agents() = 0;
  virtual std::span<Steering> steering() = 0;
  // Decides for frame `frame`; what is not decided in time stays as it was.
  virtual void Decide(int frame) = 0;
  // Decisions of a group that were not made by the frame's end.
  virtual int missed() const { return 0; }
};

}  // namespace flock

#endif  // PYHOST_EXAMPLES_ENGINE_FLOCK_DECIDER_H_
