// The smallest engine: two Python workers, typed calls, an array that both sides see, and a script that crashes.
//
//   engine_minimal [FOLDER_OF_SCRIPTS]

#include <pyhost/worker_pool.h>

#include <iostream>
#include <string>
#include <vector>

struct Plan {
  std::string goal;
  double urgency = 0;
};
template <>
inline constexpr auto pyhost::StructFields<Plan> =
    std::tuple{pyhost::Field("goal", &Plan::goal), pyhost::Field("urgency", &Plan::urgency)};

int main(int argc, char** argv) {
  auto pool = pyhost::WorkerPool::Start({.workers = 2, .python_path = {argc > 1 ? argv[1] : "scripts"}});
  if (!pool.ok()) {
    std::cerr << pool.status() << "\n";
    return 1;
  }

  absl::StatusOr<Plan> plan = pool->Call<Plan>("brain:plan", 7, "forest", std::vector<double>{0.5, 2.5}).Get();
  if (plan.ok()) std::cout << "npc 7: " << plan->goal << ", urgency " << plan->urgency << "\n";

  auto heights = pool->Allocate<double>({3, 4});  // Shared: the script writes, we read.
  absl::Status raised = pool->Call<void>("brain:raise_hill", *heights, 1, 2).Get();
  std::cout << "height at (1, 2): " << (*heights)(1, 2) << " " << raised << "\n";

  absl::Status crash = pool->Call<void>("brain:crash").Get();
  std::cout << "a crash costs its call: " << crash.message() << "\n";
  absl::StatusOr<int> answer = pool->Call<int>("brain:answer").Get();
  std::cout << "and the next call works: " << (answer.ok() ? *answer : -1) << "\n";
  return plan.ok() && raised.ok() && !crash.ok() && answer.ok() ? 0 : 1;
}
