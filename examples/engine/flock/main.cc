// A headless simulation at 60 Hz: physics in C++, decisions in Python.
//
//   engine_flock [--frames N] [--agents N] [--hz N] [--scripts FOLDER]         hz 0: as fast as it goes
//
// The same frames without scripts, with an interpreter in this process (where it was built in) and with pyhost's workers: how
// long they take, and that they come to the same world.  Then a run with a script that crashes, hangs and fails, and is mended
// while the simulation goes on.  The exit code is 0 when all of that went as it should.

#include <stdlib.h>

#include <cstdio>
#include <cstring>
#include <exception>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "decider.h"
#include "frame_times.h"
#include "scripts_folder.h"
#include "worker_decider.h"
#include "world.h"
#ifdef FLOCK_WITH_INTERPRETER
#include "interpreter_decider.h"
#endif

namespace flock {
namespace {

struct Arguments {
  int frames = 300;
  int agents = 2000;
  int hz = 60;
  std::string scripts = "scripts";
};

bool Parse(int argc, char** argv, Arguments* out) {
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i], value = i + 1 < argc ? argv[i + 1] : "";
    int* number = name == "--frames"   ? &out->frames
                  : name == "--agents" ? &out->agents
                  : name == "--hz"     ? &out->hz
                                       : nullptr;
    if (name == "--scripts" && !value.empty()) {
      out->scripts = value;
    } else if (number == nullptr || !absl::SimpleAtoi(value, number) || *number < 0) {
      std::fprintf(stderr, "usage: %s [--frames N] [--agents N] [--hz N] [--scripts FOLDER]\n", argv[0]);
      return false;
    }
  }
  return true;
}

// No decisions: what the physics alone takes.
class NoDecider final : public Decider {
 public:
  explicit NoDecider(int agents) : agents_(static_cast<size_t>(agents)), steering_(agents_.size()) {}
  std::span<Agent> agents() override { return agents_; }
  std::span<Steering> steering() override { return steering_; }
  void Decide(int) override {}

 private:
  std::vector<Agent> agents_;
  std::vector<Steering> steering_;
};

// Runs frames at `hz`; `before` is called with each number first.
template <typename Before>
uint64_t Run(Decider& decider, const Arguments& arguments, int frames, FrameTimes* times, Before before) {
  World world(decider.agents(), decider.steering());
  absl::Time next = absl::Now();
  for (int frame = 0; frame < frames; ++frame) {
    before(frame);
    const absl::Time begin = absl::Now();
    world.Perceive();
    decider.Decide(frame);
    world.Move();
    const absl::Time end = absl::Now();
    times->Add(end - begin);
    if (arguments.hz == 0) continue;
    next += absl::Seconds(1) / arguments.hz;
    if (next > end) absl::SleepFor(next - end);
  }
  return world.Fingerprint();
}

uint64_t Measure(const char* name, Decider& decider, const Arguments& arguments) {
  FrameTimes times;
  const uint64_t world = Run(decider, arguments, arguments.frames, &times, [](int) {});
  times.Print(name);
  return world;
}

absl::Status MeasureWorkers(int workers, const Arguments& arguments, const ScriptsFolder& scripts, uint64_t* world) {
  WorkerSettings settings{.workers = workers, .agents = arguments.agents, .scripts = scripts.path()};
  absl::Status failure;
  settings.on_failure = [&](int, const char*, const absl::Status& status) { failure.Update(status); };
  absl::StatusOr<std::unique_ptr<WorkerDecider>> decider = WorkerDecider::Start(settings);
  if (!decider.ok()) return decider.status();
  *world = Measure(workers == 1 ? "1 worker" : "2 workers", **decider, arguments);
  return failure;
}

// True: all ways to decide came to the same world.
bool CompareDeciders(const Arguments& arguments) {
  ScriptsFolder scripts(arguments.scripts);
  scripts.MendWander();
  FrameTimes::PrintHeader();
  NoDecider none(arguments.agents);
  Measure("without scripts", none, arguments);
  std::vector<uint64_t> worlds;
#ifdef FLOCK_WITH_INTERPRETER
  {
    absl::StatusOr<std::unique_ptr<Decider>> inside = StartInterpreterDecider(scripts.path(), arguments.agents);
    if (!inside.ok()) return std::fprintf(stderr, "%s\n", inside.status().ToString().c_str()), false;
    worlds.push_back(Measure("an interpreter in the engine", **inside, arguments));
  }
#endif
  for (int workers : {1, 2}) {
    uint64_t world = 0;
    const absl::Status status = MeasureWorkers(workers, arguments, scripts, &world);
    if (!status.ok()) return std::fprintf(stderr, "%s\n", status.ToString().c_str()), false;
    worlds.push_back(world);
  }
  bool same = true;
  for (uint64_t world : worlds) same = same && world == worlds[0];
  std::printf("all came to the same world: %s\n\n", same ? "yes" : "NO");
  return same;
}

// ---- The run with a script that should not have been shipped ------------------------------------------------------

constexpr int kMendedAt = 80;  // scripts/wander.py says what it does before
constexpr int kBugFrames = 120;

struct Failures {
  int crashes = 0, hangs = 0, errors = 0, after_mending = 0;

  void Note(int frame, const char* script, const absl::Status& status) {
    if (frame >= kMendedAt) ++after_mending;
    int* count = absl::IsAborted(status) ? &crashes : absl::IsDeadlineExceeded(status) ? &hangs : &errors;
    if (++*count > 1) return;  // One of each kind is told.
    std::printf("frame %d, %s: %s\n", frame, script,
                status.ToString(absl::StatusToStringMode::kWithNoExtraData).c_str());
  }
  bool AsPlanned() const { return crashes == 1 && hangs == 1 && errors > 0 && after_mending == 0; }
};

bool RunWithBugs(const Arguments& arguments) {
  ScriptsFolder scripts(arguments.scripts);
  Failures failures;
  WorkerSettings settings{.workers = 2, .agents = arguments.agents, .scripts = scripts.path()};
  settings.patience = absl::Milliseconds(12);
  settings.deadline = absl::Milliseconds(150);
  settings.on_failure = [&](int frame, const char* script, const absl::Status& status) {
    failures.Note(frame, script, status);
  };
  absl::StatusOr<std::unique_ptr<WorkerDecider>> decider = WorkerDecider::Start(settings);
  if (!decider.ok()) return std::fprintf(stderr, "%s\n", decider.status().ToString().c_str()), false;
  absl::Status reloaded = absl::UnavailableError("not reloaded");
  FrameTimes times;
  Run(**decider, arguments, kBugFrames, &times, [&](int frame) {
    if (frame != kMendedAt) return;
    scripts.MendWander();
    reloaded = (*decider)->Reload("wander");
    std::printf("frame %d: wander.py was mended and reloaded: %s\n", frame, reloaded.ToString().c_str());
  });
  std::printf("crashes %d, hangs %d, errors %d, failures after mending %d, late decisions %d of %d\n", failures.crashes,
              failures.hangs, failures.errors, failures.after_mending, (*decider)->missed(),
              kBugFrames * static_cast<int>(kGroups));
  FrameTimes::PrintHeader();
  times.Print("2 workers, one script broken");
  return failures.AsPlanned() && reloaded.ok();
}

}  // namespace
}  // namespace flock

int main(int argc, char** argv) {
  flock::Arguments arguments;
  if (!flock::Parse(argc, argv, &arguments)) return 2;
  try {
    const bool same = flock::CompareDeciders(arguments);
    return same && flock::RunWithBugs(arguments) ? 0 : 1;
  } catch (const std::filesystem::filesystem_error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
}
