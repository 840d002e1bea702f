// A headless simulation at 60 Hz: physics in C++, decisions in Python.
//
//   engine_flock [--frames N] [--agents N] [--hz N] [--scripts FOLDER]         hz 0: as fast as it goes
//
// The same frames without scripts, with an interpreter in this process (where it was built in) and with pyhost's workers: how
// long they take, and that they come to the same world.  Then a run with a script that crashes, hangs and fails, and is mended
// while the simulation goes on.  The exit code is 0 when all of that went as it should.

#include <stdlib.h>

#include <algorithm>
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

// A world, who decides in it, and how long its frames took.
class Simulation {
 public:
  Simulation(std::string name, std::unique_ptr<Decider> decider, int hz)
      : name_(std::move(name)), decider_(std::move(decider)), hz_(hz), world_(decider_->agents(), decider_->steering()) {}

  // Runs the next frames; `before` is called with each number first.
  template <typename Before>
  void Run(int frames, Before before) {
    absl::Time next = absl::Now();
    for (const int end = frame_ + frames; frame_ < end; ++frame_) {
      before(frame_);
      RunFrame();
      if (hz_ == 0) continue;
      next += absl::Seconds(1) / hz_;
      absl::SleepFor(next - absl::Now());
    }
  }
  void Run(int frames) {
    Run(frames, [](int) {});
  }

  // What was measured until now does not count.
  void ForgetTimes() { times_ = FrameTimes(); }
  void PrintTimes() const { times_.Print(name_); }
  uint64_t Fingerprint() const { return world_.Fingerprint(); }

 private:
  void RunFrame() {
    const absl::Time begin = absl::Now();
    world_.Perceive();
    decider_->Decide(frame_);
    world_.Move();
    times_.Add(absl::Now() - begin);
  }

  std::string name_;
  std::unique_ptr<Decider> decider_;
  int hz_;
  World world_;
  FrameTimes times_;
  int frame_ = 0;
};

// Workers that are to decide without a failure.
absl::StatusOr<std::unique_ptr<Decider>> StartWorkers(int workers, const Arguments& arguments, const std::string& scripts,
                                                      absl::Status* failure) {
  WorkerSettings settings{.workers = workers, .agents = arguments.agents, .scripts = scripts};
  settings.on_failure = [failure](int, const char*, const absl::Status& status) { failure->Update(status); };
  return WorkerDecider::Start(settings);
}

absl::StatusOr<std::vector<Simulation>> StartAll(const Arguments& arguments, const std::string& scripts,
                                                 absl::Status* failure) {
  std::vector<Simulation> all;
#ifdef FLOCK_WITH_INTERPRETER
  absl::StatusOr<std::unique_ptr<Decider>> inside = StartInterpreterDecider(scripts, arguments.agents);
  if (!inside.ok()) return inside.status();
  all.emplace_back("an interpreter in the engine", *std::move(inside), arguments.hz);
#endif
  for (int workers : {1, 2}) {
    absl::StatusOr<std::unique_ptr<Decider>> decider = StartWorkers(workers, arguments, scripts, failure);
    if (!decider.ok()) return decider.status();
    all.emplace_back(workers == 1 ? "1 worker" : "2 workers", *std::move(decider), arguments.hz);
  }
  return all;
}

// By turns, so that whatever else the machine does meets all of them alike.
void RunByTurns(std::vector<Simulation>& simulations, int frames) {
  constexpr int kTurn = 20;
  for (int done = 0; done < frames; done += kTurn) {
    for (Simulation& simulation : simulations) simulation.Run(std::min(kTurn, frames - done));
  }
}

// True: all ways to decide came to the same world.
bool CompareDeciders(const Arguments& arguments) {
  ScriptsFolder scripts(arguments.scripts);
  scripts.MendWander();
  absl::Status failure;
  absl::StatusOr<std::vector<Simulation>> deciding = StartAll(arguments, scripts.path(), &failure);
  if (!deciding.ok()) return std::fprintf(stderr, "%s\n", deciding.status().ToString().c_str()), false;
  Simulation alone("without scripts", std::make_unique<NoDecider>(arguments.agents), arguments.hz);
  alone.Run(arguments.frames);
  // An engine loads its scripts before it shows a frame.
  for (Simulation& simulation : *deciding) {
    simulation.Run(1);
    simulation.ForgetTimes();
  }
  RunByTurns(*deciding, arguments.frames);
  if (!failure.ok()) return std::fprintf(stderr, "%s\n", failure.ToString().c_str()), false;
  FrameTimes::PrintHeader();
  alone.PrintTimes();
  bool same = true;
  for (const Simulation& simulation : *deciding) {
    simulation.PrintTimes();
    same = same && simulation.Fingerprint() == deciding->front().Fingerprint();
  }
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
  absl::StatusOr<std::unique_ptr<WorkerDecider>> started = WorkerDecider::Start(settings);
  if (!started.ok()) return std::fprintf(stderr, "%s\n", started.status().ToString().c_str()), false;
  WorkerDecider& decider = **started;
  Simulation simulation("2 workers, one script broken", *std::move(started), arguments.hz);
  absl::Status reloaded = absl::UnavailableError("not reloaded");
  simulation.Run(kBugFrames, [&](int frame) {
    if (frame != kMendedAt) return;
    scripts.MendWander();
    reloaded = decider.Reload("wander");
    std::printf("frame %d: wander.py was mended and reloaded: %s\n", frame, reloaded.ToString().c_str());
  });
  std::printf("crashes %d, hangs %d, errors %d, failures after mending %d, late decisions %d of %d\n", failures.crashes,
              failures.hangs, failures.errors, failures.after_mending, decider.missed(),
              kBugFrames * static_cast<int>(kGroups));
  FrameTimes::PrintHeader();
  simulation.PrintTimes();
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
