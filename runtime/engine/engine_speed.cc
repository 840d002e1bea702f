// What calls cost an engine, side by side in one run.  Prints a table; `--start` (how the program calls itself) prints the nanoseconds
// from WorkerPool::Start to the first reply.
//
//   engine_speed [path of python3]

#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "pyhost/worker_pool.h"

namespace {

using pyhost::WorkerPool;

constexpr char kScript[] =
    "def add(a, b, c): return a + b + c\n"
    "def scale(a): a *= 2\n"
    "def one(x): return x\n";

double Micros(absl::Duration duration) { return absl::ToDoubleMicroseconds(duration); }

double Percentile(std::vector<double>& values, double part) {
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<size_t>(part * static_cast<double>(values.size())))];
}

// Microseconds of each of `times` runs.
std::vector<double> Measure(int times, const std::function<void()>& run) {
  std::vector<double> all;
  for (int i = 0; i < times; ++i) {
    const absl::Time begin = absl::Now();
    run();
    all.push_back(Micros(absl::Now() - begin));
  }
  return all;
}

void Row(const std::string& what, std::vector<double> micros) {
  const double p50 = Percentile(micros, 0.5), p99 = Percentile(micros, 0.99);
  std::printf("%-62s %10.2f us median %10.2f us p99\n", what.c_str(), p50, p99);
  std::fflush(stdout);
}

std::string ScriptFolder() {
  std::string name = (std::filesystem::temp_directory_path() / "pyhost-speed-XXXXXX").string();
  std::string path = mkdtemp(name.data());
  std::ofstream(path + "/work.py") << kScript;
  return path;
}

WorkerPool StartPool(pyhost::Options options, const std::string& folder) {
  options.python_path = {folder};
  absl::StatusOr<WorkerPool> pool = WorkerPool::Start(std::move(options));
  if (pool.ok()) return *std::move(pool);
  std::fprintf(stderr, "%s\n", std::string(pool.status().message()).c_str());
  std::exit(1);
}

void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  std::exit(1);
}

void RoundTrips(const WorkerPool& pool, const std::string& what) {
  const auto call = [&] { Check(pool.Call<double>("work:add", 1.0, 2.0, 3.0).Get().status()); };
  Measure(2000, call);
  Row(absl::StrCat("Call<double> of three scalars, round trip, ", what), Measure(20000, call));
}

// A frame: calls are submitted, then Poll wakes whoever sleeps; the time between frames is slept.
void Submits(const WorkerPool& pool) {
  std::vector<double> submits, polls;
  int done = 0;
  for (int frame = 0; frame < 200; ++frame) {
    for (int i = 0; i < 50; ++i) {
      const absl::Time begin = absl::Now();
      pool.CallAsync<double>("work:add", [&](const absl::StatusOr<double>&) { ++done; }, 1.0, 2.0, 3.0);
      submits.push_back(Micros(absl::Now() - begin));
    }
    const absl::Time begin = absl::Now();
    pool.Flush();
    polls.push_back(Micros(absl::Now() - begin));
    absl::SleepFor(absl::Milliseconds(4));
    pool.Poll();
  }
  while (done < 200 * 50) pool.Poll();
  Row("submit from the frame thread (50 a frame, workers asleep)", submits);
  Row("the one wake-up a frame (Flush)", polls);
}

void Arrays(const WorkerPool& pool) {
  for (const int64_t size : {int64_t{10}, int64_t{1000}, int64_t{1'000'000}, int64_t{16'000'000}}) {
    auto array = pool.Allocate<float>({size});
    Check(array.status());
    const auto call = [&] { Check(pool.Call<void>("work:one", *array).Get()); };
    Measure(200, call);
    Row(absl::StrCat("call with a shared array of ", size, " floats, and back"), Measure(2000, call));
  }
}

std::string Output(const std::string& command) {
  std::string text;
  FILE* pipe = popen(command.c_str(), "r");
  char line[256];
  while (pipe != nullptr && fgets(line, sizeof(line), pipe) != nullptr) text += line;
  if (pipe != nullptr) pclose(pipe);
  return text;
}

void Starts(const std::string& self, const std::string& python) {
  std::vector<double> pools, pythons;
  for (int i = 0; i < 30; ++i) {
    pools.push_back(std::atof(Output(self + " --start").c_str()) / 1e3);
    const std::vector<double> pass = Measure(1, [&] { Output(python + " -c pass"); });
    pythons.push_back(pass[0]);
  }
  std::vector<double> ratios;
  for (size_t i = 0; i < pools.size(); ++i) ratios.push_back(pools[i] / pythons[i]);
  Row("start of a pool of 2 to its first reply", pools);
  Row(python + " -c pass", pythons);
  std::printf("%-62s %10.2f median\n", "ratio", Percentile(ratios, 0.5));
}

int PrintStart() {
  const absl::Time begin = absl::Now();
  WorkerPool pool = StartPool({.workers = 2}, "/");
  Check(pool.Call<int>("builtins:abs", -1).Get().status());
  std::printf("%lld\n", static_cast<long long>(absl::ToInt64Nanoseconds(absl::Now() - begin)));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && std::string(argv[1]) == "--start") return PrintStart();
  const std::string folder = ScriptFolder();
  {
    const WorkerPool pool = StartPool({.workers = 1}, folder);
    RoundTrips(pool, "one worker");
    Arrays(pool);
  }
  {
    const WorkerPool pool = StartPool({.workers = 2}, folder);
    Submits(pool);
  }
  {
    const WorkerPool pool = StartPool({.workers = 1, .hot_workers = true}, folder);
    RoundTrips(pool, "one hot worker");
  }
  Starts(argv[0], argc > 1 ? argv[1] : "/usr/bin/python3");
  std::filesystem::remove_all(folder);
  return 0;
}
