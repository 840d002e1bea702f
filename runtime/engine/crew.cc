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
#include "runtime/base/status_util.h"
#include "runtime/os/unix_socket.h"

namespace pyhost {
namespace {

// How long a replacement may take to begin.
constexpr absl::Duration kStartPatience = absl::Seconds(30);

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

}  // namespace

Crew::Crew(CallClient* client, const Options& options, std::unique_ptr<WorkerStarter> starter, UniqueFd wake)
    : client_(client),
      size_(options.workers),
      restarts_(options.restarts),
      starter_(std::move(starter)),
      wake_(std::move(wake)) {}

absl::StatusOr<std::unique_ptr<Crew>> Crew::Start(Session* session, CallClient* client, const Options& options,
                                                  Deadline deadline) {
  PYHOST_ASSIGN_OR_RETURN(std::unique_ptr<WorkerStarter> starter,
                          WorkerStarter::Create(session, client->handle(), options));
  UniqueFd wake(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake.valid()) return ErrnoStatus(errno, "eventfd");
  PYHOST_ASSIGN_OR_RETURN(wake, MoveToHighNumber(std::move(wake)));
  std::unique_ptr<Crew> crew(new Crew(client, options, std::move(starter), std::move(wake)));
  for (int number = 0; number < crew->size_; ++number) {
    PYHOST_RETURN_IF_ERROR(Annotate(crew->StartWorker(number, deadline), absl::StrCat("start worker ", number)));
  }
  SignalsBlocked blocked;
  crew->thread_ = std::thread([self = crew.get()] { self->Run(); });
  pthread_setname_np(crew->thread_.native_handle(), "pyhost-crew");
  return crew;
}

absl::Status Crew::StartWorker(int number, Deadline deadline) {
  PYHOST_ASSIGN_OR_RETURN(std::unique_ptr<ChildProcess> process, starter_->Start(number, -1, deadline));
  MutexLock lock(mutex_);
  // Stopped meanwhile: Stop() waits for it with the others.
  if (state_ == State::kStopping) process->Signal(SIGKILL).IgnoreError();
  workers_.push_back({number, std::move(process)});
  return absl::OkStatus();
}

// ---- The thread -----------------------------------------------------------------------------------------------

void Crew::Run() {
  while (!Done()) {
    Sleep();
    for (int number : RemoveEnded()) {
      const absl::Status started = StartWorker(number, Deadline::After(kStartPatience));
      if (started.ok()) continue;
      MutexLock lock(mutex_);
      Fail(absl::StrCat("worker ", number, " could not be started: ", std::string(started.message())));
    }
    bool tell = false;
    absl::Status failure;
    {
      MutexLock lock(mutex_);
      tell = std::exchange(fail_now_, false);
      failure = failure_;
    }
    if (tell) client_->Fail(failure);
  }
}

bool Crew::Done() const {
  MutexLock lock(mutex_);
  return workers_.empty() && state_ != State::kRunning;
}

void Crew::Sleep() {
  std::vector<pollfd> events = {{wake_.get(), POLLIN, 0}};
  {
    MutexLock lock(mutex_);
    for (const Worker& worker : workers_) events.push_back({worker.process->sentinel(), POLLIN, 0});
  }
  // With patience: an exit word may come a little after the process's end.
  const bool late = std::any_of(events.begin() + 1, events.end(), [](pollfd& event) {
    return poll(&event, 1, 0) > 0;
  });
  if (poll(events.data(), late ? 1 : events.size(), late ? 10 : -1) <= 0) return;
  uint64_t count = 0;
  if (events[0].revents != 0 && read(wake_.get(), &count, sizeof(count)) < 0) return;  // Somebody else's wake-up.
}

void Crew::Wake() {
  const uint64_t one = 1;
  // Full only when it is to wake already.
  if (write(wake_.get(), &one, sizeof(one)) < 0) return;
}

std::vector<int> Crew::RemoveEnded() {
  std::vector<int> missing;
  // Before our lock: the client's lock may be held by who asks us something.
  const uint64_t queued = client_->queued();
  const uint64_t answered = client_->answered();
  MutexLock lock(mutex_);
  for (auto worker = workers_.begin(); worker != workers_.end();) {
    const std::optional<ExitStatus> status = worker->process->Poll();
    if (!status) {
      ++worker;
      continue;
    }
    const bool clean = status->kind == ExitStatus::Kind::kExited && status->value == 0;
    if (state_ == State::kRunning) NoteDeath(worker->process->ExitReason(), answered);
    const bool wanted = state_ == State::kRunning || (state_ == State::kClosing && !clean && queued > 0);
    if (wanted && failure_.ok()) missing.push_back(worker->number);
    worker = workers_.erase(worker);
  }
  replaced_ += static_cast<int>(missing.size());
  return missing;
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
  Fail(absl::StrCat(deaths, " workers ended within ", absl::FormatDuration(restarts_.period),
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
  MutexLock lock(mutex_);
  const auto gone = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return workers_.empty(); };
  return mutex_.AwaitWithTimeout(absl::Condition(&gone), deadline.Remaining());
}

void Crew::Stop() {
  {
    MutexLock lock(mutex_);
    state_ = State::kStopping;
    for (Worker& worker : workers_) worker.process->Signal(SIGKILL).IgnoreError();
  }
  Wake();
  if (thread_.joinable()) thread_.join();
  MutexLock lock(mutex_);
  // The thread was never started: an error at the start.
  for (Worker& worker : workers_) worker.process->Wait(Wait::Forever()).IgnoreError();
  workers_.clear();
}

}  // namespace pyhost
