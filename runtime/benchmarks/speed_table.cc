// The core's speed beside its limits, as a table of ratios with the goal of each: the program `speed_table`.
//
// Every figure is taken five times, in random alternation with its limit.  A ratio is of medians; the range is of the
// ratios of the rounds.  On a machine that does something else besides, the figures say nothing.

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "benchmark/benchmark.h"

namespace pyhost {
namespace {

constexpr int kRounds = 5;

struct Row {
  const char* what;
  const char* ours;
  const char* limit_name;
  const char* limit;
  double goal;
  bool rate;  // The ratio is of speeds, to be at least the goal; else of times, at most.
};

constexpr Row kRows[] = {
    {"push + pop of 64 bytes, two processes", "BM_QueueThroughput/64/real_time", "pipe", "BM_PipeThroughput/64/real_time", 3, true},
    {"round trip, both awake", "BM_QueueRoundTripAwake/real_time", "spinning cache line", "BM_SpinRoundTrip/real_time", 3, false},
    {"round trip, both asleep", "BM_QueueRoundTripAsleep/iterations:2000/real_time", "futex", "BM_FutexRoundTrip/iterations:2000/real_time", 1.1, false},
    {"lock + unlock, plain", "BM_MutexPlain", "std::mutex", "BM_StdMutex", 1.5, false},
    {"lock + unlock, recursive", "BM_MutexRecursive", "std::recursive_mutex", "BM_StdRecursiveMutex", 1.5, false},
    {"64 MiB, read in place", "BM_QueueLargeReadInPlace/real_time", "warm memcpy", "BM_MemcpyWarm/real_time", 0.8, true},
    {"eight hosts asleep, of one processor", "BM_IdleHosts/iterations:1/repeats:1", "", "", 0.001, false},
};
// The first row's other goal: 10 million a second.
constexpr double kMostNanosForAMessage = 100;

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : values[values.size() / 2];
}

std::string Nanos(double nanos) {
  char text[32];
  const bool small = nanos < 10'000, medium = nanos < 10'000'000;
  snprintf(text, sizeof(text), "%.4g %s", small ? nanos : medium ? nanos / 1e3 : nanos / 1e6, small ? "ns" : medium ? "us" : "ms");
  return text;
}

// Keeps the time of each round of each benchmark.
class Keeper : public benchmark::ConsoleReporter {
 public:
  Keeper() : ConsoleReporter(OO_Tabular) {}

  void ReportRuns(const std::vector<Run>& runs) override {
    ConsoleReporter::ReportRuns(runs);
    for (const Run& run : runs) {
      if (run.run_type != Run::RT_Iteration || run.iterations == 0) continue;
      times_[run.run_name.str()].push_back(run.GetAdjustedRealTime() * NanosPerUnit(run.time_unit));
      if (const auto share = run.counters.find("share"); share != run.counters.end()) {
        shares_[run.run_name.str()].push_back(share->second.value);
      }
    }
  }

  // How many goals were missed.
  int PrintTable() {
    printf("\n%-38s %10s   %-32s %7s %-15s goal\n", "", "it takes", "limit beside it", "ratio", "(range)");
    int missed = 0;
    for (const Row& row : kRows) missed += !PrintRow(row);
    printf("\n%s\n", missed == 0 ? "every goal is met" : "not every goal is met");
    return missed;
  }

 private:
  static double NanosPerUnit(benchmark::TimeUnit unit) { return 1e9 / benchmark::GetTimeUnitMultiplier(unit); }

  bool PrintRow(const Row& row) {
    if (row.limit[0] == '\0') return PrintShare(row);
    const std::vector<double>&ours = times_[row.ours], &limit = times_[row.limit];
    std::vector<double> ratios;
    for (size_t i = 0; i < std::min(ours.size(), limit.size()); ++i) {
      ratios.push_back(row.rate ? limit[i] / ours[i] : ours[i] / limit[i]);
    }
    if (ratios.empty()) return true;  // filtered out
    const double ratio = row.rate ? Median(limit) / Median(ours) : Median(ours) / Median(limit);
    const bool first = &row == &kRows[0];
    const bool met = row.rate ? ratio >= row.goal : ratio <= row.goal;
    const bool all_met = met && (!first || Median(ours) <= kMostNanosForAMessage);
    char range[32];
    snprintf(range, sizeof(range), "(%.2f-%.2f)", *std::min_element(ratios.begin(), ratios.end()),
             *std::max_element(ratios.begin(), ratios.end()));
    printf("%-38s %10s   %-21s %10s %7.2f %-15s %s %.4g%s: %s\n", row.what, Nanos(Median(ours)).c_str(), row.limit_name,
           Nanos(Median(limit)).c_str(), ratio, range, row.rate ? "at least" : "at most", row.goal,
           first ? ", and 10 million/s" : "", all_met ? "met" : "MISSED");
    return all_met;
  }

  bool PrintShare(const Row& row) {
    const std::vector<double>& shares = shares_[row.ours];
    if (shares.empty()) return true;
    const double worst = *std::max_element(shares.begin(), shares.end());
    const bool met = worst <= row.goal;
    printf("%-38s %9.3f%%   %-32s %7s %-15s at most %.4g%%: %s\n", row.what, 100 * worst, "", "", "", 100 * row.goal,
           met ? "met" : "MISSED");
    return met;
  }

  std::map<std::string, std::vector<double>> times_;
  std::map<std::string, std::vector<double>> shares_;
};

// Exactly what the table needs.
std::string Filter() {
  std::string filter = "--benchmark_filter=^(";
  for (const Row& row : kRows) {
    filter += std::string(row.ours) + "|" + (row.limit[0] == '\0' ? "" : std::string(row.limit) + "|");
  }
  filter.back() = ')';
  return filter + "$";
}

int Main(int argc, char** argv) {
  const std::string filter = Filter();
  const std::string rounds = "--benchmark_repetitions=" + std::to_string(kRounds);
  std::vector<const char*> words = {argv[0], filter.c_str(), rounds.c_str(), "--benchmark_enable_random_interleaving=true",
                                    "--benchmark_min_time=0.2", "--benchmark_display_aggregates_only=false"};
  words.insert(words.end(), argv + 1, argv + argc);  // they overrule these
  int count = static_cast<int>(words.size());
  benchmark::Initialize(&count, const_cast<char**>(words.data()));
  if (benchmark::ReportUnrecognizedArguments(count, const_cast<char**>(words.data()))) return 1;
  Keeper keeper;
  benchmark::RunSpecifiedBenchmarks(&keeper);
  benchmark::Shutdown();
  keeper.PrintTable();
  return 0;
}

}  // namespace
}  // namespace pyhost

int main(int argc, char** argv) { return pyhost::Main(argc, argv); }
