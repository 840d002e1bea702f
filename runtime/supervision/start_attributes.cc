#include "runtime/supervision/start_attributes.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "runtime/base/status_util.h"
#include "runtime/os/descriptor_places.h"
#include "runtime/os/launcher.h"
#include "runtime/os/scheduling.h"
#include "runtime/os/text_file.h"
#include "runtime/os/unix_socket.h"
#include "runtime/supervision/process_status.h"
#include "runtime/supervision/wire.h"

namespace pyhost {
namespace {

constexpr uint64_t SignalBit(int signal) { return uint64_t{1} << (signal - 1); }

// A signal number is kept by the C library (its threads use 32 and 33), or cannot be changed at all.
bool IsReserved(int signal) { return signal == SIGKILL || signal == SIGSTOP || (signal >= 32 && signal < SIGRTMIN); }

constexpr char kOomScoreAdjustment[] = "/proc/self/oom_score_adj";
constexpr unsigned long kNoChange = 0xffffffff;  // of the personality

int OomScoreAdjustment() {
  int adjustment = 0;
  const absl::StatusOr<std::string> text = ReadTextFile(kOomScoreAdjustment);
  return text.ok() && absl::SimpleAtoi(absl::StripAsciiWhitespace(*text), &adjustment) ? adjustment : 0;
}

absl::Status SetOomScoreAdjustment(int adjustment) {
  const std::string text = absl::StrCat(adjustment);
  UniqueFd file(open(kOomScoreAdjustment, O_WRONLY | O_CLOEXEC));
  if (file.valid() && write(file.get(), text.data(), text.size()) > 0) return absl::OkStatus();
  return ErrnoStatus(errno, absl::StrCat("write ", text, " to ", kOomScoreAdjustment));
}

std::string_view NameOf(const std::string& entry) { return std::string_view(entry).substr(0, entry.find('=')); }

}  // namespace

absl::StatusOr<StartAttributes> StartAttributes::Capture(const ProcessStatus& status) {
  StartAttributes attributes;
  attributes.umask = status.umask;
  attributes.ignored_signals = status.ignored_signals;
  attributes.blocked_signals = status.blocked_signals;
  PYHOST_ASSIGN_OR_RETURN(const Scheduling scheduling, Scheduling::OfAFork());
  attributes.nice = scheduling.nice;
  attributes.policy = scheduling.policy;
  attributes.oom_score_adjustment = OomScoreAdjustment();
  attributes.timer_slack = prctl(PR_GET_TIMERSLACK);
  attributes.personality = ::personality(kNoChange);
  for (int resource = 0; resource < RLIM_NLIMITS; ++resource) {
    if (getrlimit(static_cast<__rlimit_resource>(resource), &attributes.limits[resource]) != 0) {
      return ErrnoStatus(errno, absl::StrCat("getrlimit of resource ", resource));
    }
  }
  // More CPUs than a cpu_set_t holds: EINVAL; then children run where their server runs, on all of them.
  CPU_ZERO(&attributes.affinity);
  if (sched_getaffinity(0, sizeof(attributes.affinity), &attributes.affinity) != 0 && errno != EINVAL) {
    return ErrnoStatus(errno, "sched_getaffinity");
  }
  attributes.environment = CurrentEnvironment();
  return attributes;
}

std::string StartAttributes::Encode() const {
  WireWriter writer;
  writer.Number(umask);
  writer.Number(ignored_signals);
  writer.Number(blocked_signals);
  for (int number : {nice, policy, oom_score_adjustment, timer_slack, personality}) {
    writer.Number(static_cast<uint64_t>(number));
  }
  for (const rlimit& limit : limits) {
    writer.Number(limit.rlim_cur);
    writer.Number(limit.rlim_max);
  }
  writer.Text({reinterpret_cast<const char*>(&affinity), sizeof(affinity)});
  writer.Texts(environment);
  writer.Number(descriptors.size());
  for (int number : descriptors) writer.Number(static_cast<uint64_t>(number));
  return writer.Take();
}

absl::StatusOr<StartAttributes> StartAttributes::Decode(std::string_view bytes) {
  WireReader reader(bytes);
  StartAttributes attributes;
  attributes.umask = static_cast<uint32_t>(reader.Number());
  attributes.ignored_signals = reader.Number();
  attributes.blocked_signals = reader.Number();
  for (int* number : {&attributes.nice, &attributes.policy, &attributes.oom_score_adjustment, &attributes.timer_slack,
                      &attributes.personality}) {
    *number = static_cast<int>(reader.Number());
  }
  for (rlimit& limit : attributes.limits) {
    limit.rlim_cur = reader.Number();
    limit.rlim_max = reader.Number();
  }
  std::string_view cpus = reader.Text();
  if (cpus.size() == sizeof(cpu_set_t)) std::memcpy(&attributes.affinity, cpus.data(), cpus.size());
  attributes.environment = reader.Texts();
  for (uint64_t left = reader.Number(); left > 0 && reader.ok(); --left) {
    attributes.descriptors.push_back(static_cast<int>(reader.Number()));
  }
  if (!reader.ok()) return absl::DataLossError("the attributes of a start are cut off");
  return attributes;
}

absl::Status StartAttributes::Apply(std::vector<UniqueFd> received, const StartAttributes& now) const {
  PYHOST_RETURN_IF_ERROR(TakeDescriptors(std::move(received)));
  ApplyEnvironment(now);
  ApplySignals(now);
  ::umask(umask);
  PYHOST_RETURN_IF_ERROR(ApplyScheduling(now));
  PYHOST_RETURN_IF_ERROR(ApplyOtherSettings(now));
  return ApplyLimits(now);
}

absl::Status StartAttributes::TakeDescriptors(std::vector<UniqueFd> received) const {
  if (received.size() != descriptors.size()) {
    return absl::DataLossError(absl::StrCat("a start came with ", received.size(), " descriptors instead of ",
                                            descriptors.size()));
  }
  std::vector<DescriptorPlace> places;
  for (size_t i = 0; i < received.size(); ++i) {
    UniqueFd fd = std::move(received[i]);  // closed in here: its number may be another one's place
    if (descriptors[i] != kWorkingDirectory) {
      places.push_back({std::move(fd), descriptors[i]});
    } else if (fchdir(fd.get()) != 0) {
      return ErrnoStatus(errno, "fchdir to the starter's working directory");
    }
  }
  PYHOST_RETURN_IF_ERROR(PlaceDescriptors(std::move(places)));
  for (int standard = 0; standard <= 2; ++standard) {
    if (std::find(descriptors.begin(), descriptors.end(), standard) == descriptors.end()) close(standard);
  }
  return absl::OkStatus();
}

void StartAttributes::ApplyEnvironment(const StartAttributes& now) const {
  if (now.environment == environment) return;
  clearenv();
  for (const std::string& entry : environment) {
    size_t equals = entry.find('=');
    if (equals == std::string::npos || equals == 0) continue;  // nothing getenv() could find
    setenv(std::string(NameOf(entry)).c_str(), entry.c_str() + equals + 1, 1);
  }
}

void StartAttributes::ApplySignals(const StartAttributes& now) const {
  const uint64_t differ = now.ignored_signals ^ ignored_signals;
  for (int signal = 1; signal < NSIG; ++signal) {
    if ((differ & SignalBit(signal)) == 0 || IsReserved(signal)) continue;
    struct sigaction action = {};
    action.sa_handler = (ignored_signals & SignalBit(signal)) != 0 ? SIG_IGN : SIG_DFL;
    sigaction(signal, &action, nullptr);
  }
}

absl::Status StartAttributes::ApplySignalMask() const {
  sigset_t mask;
  sigemptyset(&mask);
  for (int signal = 1; signal < NSIG; ++signal) {
    if ((blocked_signals & SignalBit(signal)) != 0 && !IsReserved(signal)) sigaddset(&mask, signal);
  }
  int error = pthread_sigmask(SIG_SETMASK, &mask, nullptr);
  return error == 0 ? absl::OkStatus() : ErrnoStatus(error, "pthread_sigmask");
}

absl::Status StartAttributes::ApplyScheduling(const StartAttributes& now) const {
  const sched_param no_priority = {};  // a server's real-time policy is its starters'
  if (policy != now.policy && sched_setscheduler(0, policy, &no_priority) != 0) {
    return ErrnoStatus(errno, absl::StrCat("sched_setscheduler to policy ", policy));
  }
  errno = 0;
  int current = getpriority(PRIO_PROCESS, 0);
  if (current != nice && setpriority(PRIO_PROCESS, 0, nice) != 0) {
    return ErrnoStatus(errno, absl::StrCat("setpriority from nice ", current, " to ", nice));
  }
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  if (CPU_COUNT(&affinity) == 0 || sched_getaffinity(0, sizeof(cpus), &cpus) != 0 || CPU_EQUAL(&cpus, &affinity)) {
    return absl::OkStatus();
  }
  if (sched_setaffinity(0, sizeof(affinity), &affinity) == 0) return absl::OkStatus();
  return ErrnoStatus(errno, absl::StrCat("sched_setaffinity to ", CPU_COUNT(&affinity), " CPUs"));
}

absl::Status StartAttributes::ApplyOtherSettings(const StartAttributes& now) const {
  if (timer_slack != now.timer_slack && prctl(PR_SET_TIMERSLACK, static_cast<unsigned long>(timer_slack)) != 0) {
    return ErrnoStatus(errno, absl::StrCat("prctl(PR_SET_TIMERSLACK) to ", timer_slack));
  }
  if (personality != now.personality && ::personality(static_cast<unsigned long>(personality)) < 0) {
    return ErrnoStatus(errno, absl::StrCat("personality ", personality));
  }
  if (oom_score_adjustment == now.oom_score_adjustment) return absl::OkStatus();
  return SetOomScoreAdjustment(oom_score_adjustment);
}

// Last, because a lower limit may forbid what comes before.
absl::Status StartAttributes::ApplyLimits(const StartAttributes& now) const {
  for (int resource = 0; resource < RLIM_NLIMITS; ++resource) {
    const rlimit &current = now.limits[resource], &wanted = limits[resource];
    auto number = static_cast<__rlimit_resource>(resource);
    if (current.rlim_cur == wanted.rlim_cur && current.rlim_max == wanted.rlim_max) continue;
    if (setrlimit(number, &wanted) != 0) {
      return ErrnoStatus(errno, absl::StrCat("setrlimit of resource ", resource, " to ", wanted.rlim_cur, " of at most ",
                                             wanted.rlim_max));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<StartDescriptors> StartDescriptors::Open(std::span<const int> passed) {
  StartDescriptors result;
  UniqueFd here(open(".", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!here.valid()) return ErrnoStatus(errno, "open the working directory");
  PYHOST_ASSIGN_OR_RETURN(result.working_directory_, MoveToHighNumber(std::move(here)));
  result.numbers_ = {StartAttributes::kWorkingDirectory};
  result.fds_ = {result.working_directory_.get()};
  for (int standard = 0; standard <= 2; ++standard) {
    // A closed one may be some file's by now, which a launched child would not inherit.
    const int flags = fcntl(standard, F_GETFD);
    if (flags < 0 || (flags & FD_CLOEXEC) != 0) continue;
    result.numbers_.push_back(standard);
    result.fds_.push_back(standard);
  }
  for (int fd : passed) {
    if (std::find(result.numbers_.begin(), result.numbers_.end(), fd) != result.numbers_.end()) continue;
    if (fcntl(fd, F_GETFD) < 0) return ErrnoStatus(EBADF, absl::StrCat("pass descriptor ", fd, " to a new process"));
    result.numbers_.push_back(fd);
    result.fds_.push_back(fd);
  }
  return result;
}

void StartDescriptors::Replace(int number, int fd) {
  const auto found = std::find(numbers_.begin(), numbers_.end(), number);
  if (found != numbers_.end()) {
    fds_[static_cast<size_t>(found - numbers_.begin())] = fd;
    return;
  }
  numbers_.push_back(number);
  fds_.push_back(fd);
}

}  // namespace pyhost
