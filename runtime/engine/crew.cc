#include "runtime/engine/crew.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "runtime/base/status_util.h"
#include "runtime/engine/program.h"
#include "runtime/os/pidfd.h"
#include "runtime/os/process.h"
#include "runtime/os/unix_socket.h"

namespace pyhost {
namespace {

// How long a replacement may take to begin.
constexpr absl::Duration kStartPatience = absl::Seconds(30);

// How long recovery may take to report what a worker took along; a thousand times what it takes.
constexpr absl::Duration kReportPatience = absl::Seconds(1);

// Blocks every signal for the threads started in its scope.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};

// So many reports of workers that ended are kept for those whose calls they had.
constexpr size_t kFaultsKept = 64;

// Returns after so many milliseconds (-1: never), or when something is there.  The first only wakes.
void AwaitEvents(std::span<pollfd> events, int millis) {
  constexpr int kBetweenGlances = 10;
  if (poll(events.data(), events.size(), millis) >= 0) return;
  // It refuses more descriptors than RLIMIT_NOFILE, which the engine may have lowered.  Each may have something then; reading
  // what has nothing waits for nothing.
  absl::SleepFor(absl::Milliseconds(millis < 0 ? kBetweenGlances : std::min(millis, kBetweenGlances)));
  for (pollfd& event : events.subspan(1)) event.revents = event.fd < 0 ? 0 : POLLIN;
}

bool HasInput(int fd) {
  pollfd event = {fd, POLLIN, 0};
  return poll(&event, 1, 0) > 0 && (event.revents & POLLIN) != 0;
}

}  // namespace

Crew::Crew(CallClient* client, Lanes* lanes, const Options& options, UniqueFd wake)
    : client_(client), lanes_(lanes), size_(options.workers), restarts_(options.restarts), wake_(std::move(wake)) {}

absl::StatusOr<std::unique_ptr<Crew>> Crew::Start(Session* session, CallClient* client, Lanes* lanes,
                                                  const Options& options, Deadline deadline) {
  UniqueFd wake(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake.valid()) return ErrnoStatus(errno, "eventfd");
  PYHOST_ASSIGN_OR_RETURN(wake, MoveToHighNumber(std::move(wake)));
  std::unique_ptr<Crew> crew(new Crew(client, lanes, options, std::move(wake)));
  PYHOST_ASSIGN_OR_RETURN(crew->starter_, WorkerStarter::Create(session, options, EngineVersion()));
  PYHOST_ASSIGN_OR_RETURN(crew->output_, WorkerOutput::Create(options.output));
  for (int number = 0; number < crew->size_; ++number) {
    PYHOST_RETURN_IF_ERROR(Annotate(crew->StartWorker(number, {deadline, nullptr}), absl::StrCat("start worker ", number)));
  }
  return crew;
}

void Crew::BeginWatching(std::function<int64_t()> look, std::function<void(HostId)> on_end) {
  look_ = std::move(look);
  on_end_ = std::move(on_end);
  SignalsBlocked blocked;
  MutexLock lock(join_mutex_);
  thread_ = std::thread([this] { Run(); });
  pthread_setname_np(thread_.native_handle(), "pyhost-crew");
}

absl::Status Crew::StartWorker(int number, Wait wait) {
  Worker worker{.number = number, .process = nullptr, .faults = nullptr, .output = nullptr};
  PYHOST_ASSIGN_OR_RETURN(worker.faults, FaultFile::Create());
  PYHOST_ASSIGN_OR_RETURN(WorkerOutput::Ends output, output_->Open());
  const WorkerSeat seat{.number = number,
                        .lanes = lanes_->HandlesFor(number),
                        .wait_at = Lanes::kWaitAt,
                        .faults = worker.faults->fd(),
                        .output = output.theirs_fd};
  PYHOST_ASSIGN_OR_RETURN(worker.process, starter_->Start(seat, wait));
  if (output.ours.valid()) worker.output = std::make_shared<UniqueFd>(std::move(output.ours));
  MutexLock lock(mutex_);
  // Stopped meanwhile: Stop() waits for it with the others.
  if (state_ == State::kStopping) worker.process->Signal(SIGKILL).IgnoreError();
  workers_.push_back(std::move(worker));
  return absl::OkStatus();
}

// ---- The thread -----------------------------------------------------------------------------------------------

void Crew::Run() {
  while (!Done()) {
    Sleep();
    RemoveEnded();
    StartMissing();
    TellFailure();
    Look();
  }
  TellFailure();
  AwaitReports();
  finished_.Notify();
}

bool Crew::WantsReplacements(uint64_t queued) const {
  return state_ == State::kRunning || (state_ == State::kClosing && queued > 0);
}

void Crew::StartMissing() {
  if (missing_.empty()) return;
  {
    const uint64_t queued = lanes_->queued();
    MutexLock lock(mutex_);
    if (!WantsReplacements(queued)) return missing_.clear();
  }
  while (!missing_.empty() && Deadline::MonotonicNanos() >= next_start_) {
    UntilStopped until_stopped(this);
    const absl::Status started = StartWorker(missing_.back(), {Deadline::After(kStartPatience), &until_stopped});
    if (!started.ok()) return NoteFailedStart(missing_.back(), started);
    missing_.pop_back();
    start_pause_ = absl::ZeroDuration();
  }
}

absl::Status Crew::UntilStopped::OnSignal() {
  MutexLock lock(crew_->mutex_);
  return crew_->state_ == State::kStopping ? absl::CancelledError("the pool was ended") : absl::OkStatus();
}

// What keeps a worker from starting may be over soon: no memory, or no descriptors, for a moment.  The pause stays short enough
// for the intensity to be reached.
void Crew::NoteFailedStart(int number, const absl::Status& why) {
  constexpr absl::Duration kFirstPause = absl::Milliseconds(10), kLongestPause = absl::Seconds(1);
  const absl::Duration longest = restarts_.period / (2 * std::max(restarts_.deaths, 1));
  start_pause_ = std::clamp(2 * start_pause_, kFirstPause, std::clamp(longest, kFirstPause, kLongestPause));
  next_start_ = Deadline::MonotonicNanos() + absl::ToInt64Nanoseconds(start_pause_);
  const uint64_t answered = client_->answered();
  MutexLock lock(mutex_);
  NoteDeath(absl::StrCat("worker ", number, " could not be started: ", std::string(why.message())), answered);
}

void Crew::Look() {
  if (Deadline::MonotonicNanos() < next_look_.load()) return;
  next_look_ = kNever;  // Before the look: what it comes too late for is asked for anew.
  BringForward(look_());
}

void Crew::TellFailure() {
  absl::Status failure;
  {
    MutexLock lock(mutex_);
    if (!std::exchange(fail_now_, false)) return;
    failure = failure_;
  }
  AwaitReports();
  client_->Fail(failure);
}

// The calls that the last workers took along end as lost, which says how, rather than with the pool.
void Crew::AwaitReports() {
  const Deadline deadline = Deadline::After(kReportPatience);
  for (HostId worker : buried_) lanes_->AwaitReport(worker, deadline);
  buried_.clear();
  client_->Drain({deadline, nullptr}).IgnoreError();  // Waits for another thread that has them in its hands.
}

bool Crew::Done() const {
  MutexLock lock(mutex_);
  return workers_.empty() && missing_.empty() && state_ != State::kRunning;
}

void Crew::Sleep() {
  std::vector<Worker> workers;
  {
    MutexLock lock(mutex_);
    workers = workers_;
  }
  std::vector<pollfd> events = {{wake_.get(), POLLIN, 0}};
  for (const Worker& worker : workers) events.push_back({worker.process->sentinel(), POLLIN, 0});
  for (const Worker& worker : workers) events.push_back({worker.output ? worker.output->get() : -1, POLLIN, 0});
  AwaitEvents(events, SleepMillis());
  woken_.exchange(false);  // Reads, too: what was done before the wake-up is seen by what follows.
  uint64_t count = 0;
  if (events[0].revents != 0 && read(wake_.get(), &count, sizeof(count)) < 0) return;  // Somebody else's wake-up.
  ReadOutput(workers, std::span(events).subspan(1 + workers.size()));
}

int Crew::SleepMillis() const {
  constexpr int64_t kNanosPerMilli = 1'000'000;
  // A process has ended whose exit word is not there yet: its reaper needs a moment.
  const int most = awaiting_exit_ ? 2 : 10'000;
  const int64_t next = std::min(next_look_.load(), missing_.empty() ? kNever : next_start_);
  if (next == kNever) return awaiting_exit_ ? most : -1;
  const int64_t left = (next - Deadline::MonotonicNanos() + kNanosPerMilli - 1) / kNanosPerMilli;
  return static_cast<int>(std::clamp<int64_t>(left, 0, most));
}

void Crew::ReadOutput(const std::vector<Worker>& workers, std::span<const pollfd> events) {
  for (size_t i = 0; i < workers.size(); ++i) {
    if (events[i].revents == 0 || output_->Read(workers[i].number, workers[i].output->get())) continue;
    MutexLock lock(mutex_);
    for (Worker& worker : workers_) {
      if (worker.output == workers[i].output) worker.output = nullptr;  // Its end.
    }
  }
}

void Crew::Wake() {
  if (woken_.exchange(true)) return;
  const uint64_t one = 1;
  // Full only when it is to wake already.
  if (write(wake_.get(), &one, sizeof(one)) < 0) return;
}

bool Crew::BringForward(int64_t nanos) {
  int64_t next = next_look_.load();
  while (nanos < next && !next_look_.compare_exchange_weak(next, nanos)) {
  }
  return nanos < next;
}

void Crew::LookBefore(int64_t nanos) {
  if (BringForward(nanos)) Wake();
}

void Crew::RemoveEnded() {
  std::vector<Worker> ended;
  // Before our lock: the client's lock may be held by who asks us something.
  const uint64_t queued = lanes_->queued();
  const uint64_t answered = client_->answered();
  awaiting_exit_ = false;
  {
    MutexLock lock(mutex_);
    for (auto worker = workers_.begin(); worker != workers_.end();) {
      const std::optional<ExitStatus> status = worker->process->Poll();
      if (!status) {
        awaiting_exit_ = awaiting_exit_ || PidfdIsReadable(worker->process->sentinel());
        ++worker;
        continue;
      }
      ended.push_back(*worker);
      if (state_ == State::kRunning) NoteDeath(worker->process->ExitReason(), answered);
      if (WantsReplacements(queued)) {
        missing_.push_back(worker->number);
        ++replaced_;
      }
      faults_.push_back({worker->process->id(), worker->faults->Read()});
      worker = workers_.erase(worker);
    }
    while (faults_.size() > kFaultsKept) faults_.pop_front();
  }
  for (const Worker& worker : ended) Bury(worker);
}

void Crew::Bury(const Worker& worker) {
  while (worker.output && output_->Read(worker.number, worker.output->get()) && HasInput(worker.output->get())) {
  }
  std::erase_if(buried_, [this](HostId dead) { return lanes_->AwaitReport(dead, Deadline::After(absl::ZeroDuration())); });
  buried_.push_back(worker.process->id());
  on_end_(worker.process->id());
}

// ---- Stuck workers ------------------------------------------------------------------------------------------

std::optional<std::string> Crew::EndStuck(CallId call) {
  Worker stuck{};
  {
    MutexLock lock(mutex_);
    for (const Worker& worker : workers_) {
      if (lanes_->Runs(worker.process->id(), call)) stuck = worker;
    }
  }
  if (stuck.process == nullptr) return std::nullopt;
  // Where it is: best asked while it runs, and worth a moment.
  if (stuck.process->Signal(FaultFile::DumpSignal()).ok()) stuck.faults->AwaitDump();
  // Whether it is still in that call can be known only while it stands still.
  if (!stuck.process->Signal(SIGSTOP).ok()) return std::nullopt;
  AwaitStopped(stuck.process->pid());
  if (!lanes_->Runs(stuck.process->id(), call)) {
    stuck.process->Signal(SIGCONT).IgnoreError();
    return std::nullopt;
  }
  // With what it started.  It stands still, so the group of its number is its own.
  kill(-stuck.process->pid(), SIGKILL);
  stuck.process->Signal(SIGKILL).IgnoreError();
  return stuck.faults->Read();
}

std::string Crew::FaultOf(HostId worker) const {
  MutexLock lock(mutex_);
  for (const Fault& fault : faults_) {
    if (fault.worker == worker) return fault.text;
  }
  for (const Worker& living : workers_) {
    if (living.process->id() == worker) return living.faults->Read();
  }
  return "";
}

std::vector<Crew::WorkerInfo> Crew::workers() const {
  MutexLock lock(mutex_);
  std::vector<WorkerInfo> all;
  for (const Worker& worker : workers_) all.push_back({worker.number, worker.process->id(), worker.process->pid()});
  std::sort(all.begin(), all.end(), [](const WorkerInfo& a, const WorkerInfo& b) { return a.number < b.number; });
  return all;
}

// ---- Giving up -------------------------------------------------------------------------------------------------

void Crew::NoteDeath(const std::string& how, uint64_t answered) {
  if (!failure_.ok()) return;
  const absl::Time now = absl::Now();
  if (std::exchange(answered_, answered) != answered) deaths_.clear();
  deaths_.push_back(now);
  while (now - deaths_.front() > restarts_.period) deaths_.pop_front();
  const int deaths = static_cast<int>(deaths_.size());
  if (deaths < restarts_.deaths && report_.ok()) return;
  if (!report_.ok()) return Fail(std::string(report_.message()));
  Fail(absl::StrCat(deaths, " workers ended, or could not be started, within ", absl::FormatDuration(restarts_.period),
                    " and no call was answered meanwhile; the last: ", how));
}

void Crew::Fail(const std::string& why) {
  if (!failure_.ok()) return;
  failure_ = absl::UnavailableError(absl::StrCat("the pool gave up: ", why));
  fail_now_ = true;
  state_ = State::kStopping;
  for (Worker& worker : workers_) worker.process->Signal(SIGKILL).IgnoreError();
}

void Crew::NoteReport(const absl::Status& report) {
  MutexLock lock(mutex_);
  report_ = report;
}

absl::Status Crew::failure() const {
  MutexLock lock(mutex_);
  return failure_;
}

int Crew::replaced() const {
  MutexLock lock(mutex_);
  return replaced_;
}

// ---- The end ----------------------------------------------------------------------------------------------------

bool Crew::Close(Deadline deadline) {
  {
    MutexLock lock(mutex_);
    if (state_ == State::kRunning) state_ = State::kClosing;
  }
  Wake();
  return finished_.WaitForNotificationWithTimeout(deadline.Remaining());
}

void Crew::Stop() {
  {
    MutexLock lock(mutex_);
    state_ = State::kStopping;
    for (Worker& worker : workers_) worker.process->Signal(SIGKILL).IgnoreError();
  }
  Wake();
  {
    MutexLock lock(join_mutex_);  // Of several that stop it one joins, and all return when it has.
    if (thread_.joinable()) thread_.join();
  }
  MutexLock lock(mutex_);
  // The thread was never started: an error at the start.
  for (Worker& worker : workers_) worker.process->Wait(Wait::Forever()).IgnoreError();
  workers_.clear();
}

}  // namespace pyhost
