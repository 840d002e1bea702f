#include "runtime/engine/worker_output.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "runtime/base/status_util.h"
#include "runtime/os/unix_socket.h"

namespace pyhost {

absl::StatusOr<std::unique_ptr<WorkerOutput>> WorkerOutput::Create(const Output& output) {
  if (output.to == Output::To::kCallback && !output.on_output) {
    return absl::InvalidArgumentError("Output::To::kCallback without on_output");
  }
  UniqueFd file;
  const bool to_file = output.to == Output::To::kFile;
  if (to_file || output.to == Output::To::kNowhere) {
    const std::string path = to_file ? output.path : "/dev/null";
    file = UniqueFd(open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
    if (!file.valid()) return ErrnoStatus(errno, absl::StrCat("open '", path, "' for the workers' output"));
    PYHOST_ASSIGN_OR_RETURN(file, MoveToHighNumber(std::move(file)));
  }
  return std::unique_ptr<WorkerOutput>(new WorkerOutput(std::move(file), output.to == Output::To::kCallback));
}

absl::StatusOr<WorkerOutput::Ends> WorkerOutput::Open() {
  Ends ends;
  ends.theirs_fd = file_.get();
  if (!pipes_) return ends;
  int pipe[2];
  if (pipe2(pipe, O_CLOEXEC) != 0) return ErrnoStatus(errno, "pipe for a worker's output");
  ends.ours = UniqueFd(pipe[0]);
  ends.theirs = UniqueFd(pipe[1]);
  PYHOST_ASSIGN_OR_RETURN(ends.ours, MoveToHighNumber(std::move(ends.ours)));
  PYHOST_ASSIGN_OR_RETURN(ends.theirs, MoveToHighNumber(std::move(ends.theirs)));
  if (fcntl(ends.ours.get(), F_SETFL, O_NONBLOCK) != 0) return ErrnoStatus(errno, "fcntl of a worker's output");
  ends.theirs_fd = ends.theirs.get();
  return ends;
}

bool WorkerOutput::Read(int worker, int ours) {
  constexpr size_t kAtOnce = 64 * 1024;
  std::array<char, kAtOnce> text;
  const ssize_t got = read(ours, text.data(), text.size());
  if (got < 0) return errno == EAGAIN || errno == EINTR;
  Add(worker, {text.data(), static_cast<size_t>(got)});
  return got > 0;
}

void WorkerOutput::Cut(Pending* pending) {
  const size_t surplus = pending->text.size() - std::min(pending->text.size(), kMostBytes);
  pending->text.erase(0, surplus);
  pending->dropped += surplus;
}

void WorkerOutput::Add(int worker, std::string_view text) {
  MutexLock lock(mutex_);
  Pending& pending = pending_[worker];
  pending.text.append(text);
  // Cut seldom: each time costs a move of what is kept.
  if (pending.text.size() > 2 * kMostBytes) Cut(&pending);
}

std::vector<std::pair<int, std::string>> WorkerOutput::Take() {
  std::vector<std::pair<int, std::string>> taken;
  MutexLock lock(mutex_);
  for (auto& [worker, pending] : pending_) {
    Cut(&pending);
    size_t end = pending.text.rfind('\n') + 1;  // 0 when there is none
    if (end == 0 && pending.text.size() == kMostBytes) end = kMostBytes;
    if (end == 0) continue;
    std::string text = pending.text.substr(0, end);
    pending.text.erase(0, end);
    if (const uint64_t dropped = std::exchange(pending.dropped, 0)) {
      text.insert(0, absl::StrCat("[", dropped, " bytes of output dropped]\n"));
    }
    taken.emplace_back(worker, std::move(text));
  }
  return taken;
}

}  // namespace pyhost
