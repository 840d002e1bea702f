#include "runtime/os/unix_socket.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "runtime/base/status_util.h"

namespace pyhost {
namespace {

constexpr size_t kControlBytes = CMSG_SPACE(sizeof(int) * kMaxDescriptorsPerDatagram);

absl::Status DescriptorError(int error, const std::string& call) {
  if (error != EMFILE && error != EINVAL) return ErrnoStatus(error, call);
  rlimit limit = {};
  getrlimit(RLIMIT_NOFILE, &limit);
  return ErrnoStatus(EMFILE, absl::StrCat(call, ": the limit of open descriptors RLIMIT_NOFILE is ", limit.rlim_cur));
}

// The number to ask for: high, unless the process may not have such a number.
int HighNumber(int at_least) {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur > static_cast<rlim_t>(at_least) + 32) return at_least;
  return limit.rlim_cur > 64 ? static_cast<int>(limit.rlim_cur / 2) : 3;
}

void AddDescriptors(msghdr* message, std::byte* control, std::span<const int> fds) {
  message->msg_control = control;
  message->msg_controllen = CMSG_SPACE(fds.size_bytes());
  cmsghdr* header = CMSG_FIRSTHDR(message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(fds.size_bytes());
  std::memcpy(CMSG_DATA(header), fds.data(), fds.size_bytes());
}

// Waits until the socket may take a datagram.
absl::Status WaitWritable(int socket, Wait wait) {
  if (wait.deadline.Expired()) return absl::DeadlineExceededError("sendmsg: the receiver's queue is full");
  if (wait.interruptible != nullptr) wait.interruptible->BeginBlocking();
  pollfd entry = {socket, POLLOUT, 0};
  int timeout = -1;
  if (!wait.deadline.is_never()) {
    timeout = static_cast<int>(std::min<int64_t>(absl::ToInt64Milliseconds(wait.deadline.Remaining()) + 1, 1000));
  }
  int ready = poll(&entry, 1, timeout);
  int error = errno;
  if (wait.interruptible != nullptr) wait.interruptible->EndBlocking();
  if (ready >= 0) return absl::OkStatus();
  if (error != EINTR) return ErrnoStatus(error, "poll control socket");
  return wait.interruptible != nullptr ? wait.interruptible->OnSignal() : absl::OkStatus();
}

// Of a socket that gave no bytes: its end, and not an empty datagram.
bool NothingWillCome(int socket) {
  pollfd entry = {socket, POLLRDHUP, 0};
  return poll(&entry, 1, 0) > 0 && (entry.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

absl::Status TakeDescriptors(msghdr* message, std::vector<UniqueFd>* fds) {
  for (cmsghdr* header = CMSG_FIRSTHDR(message); header != nullptr; header = CMSG_NXTHDR(message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(int));
      fds->emplace_back(fd);
    }
  }
  for (UniqueFd& fd : *fds) {
    PYHOST_ASSIGN_OR_RETURN(fd, MoveToHighNumber(std::move(fd)));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<UniqueFd> DuplicateHigh(int fd, int at_least) {
  UniqueFd copy(fcntl(fd, F_DUPFD_CLOEXEC, HighNumber(at_least)));
  if (!copy.valid() && (errno == EINVAL || errno == EMFILE)) copy.reset(fcntl(fd, F_DUPFD_CLOEXEC, 3));
  if (!copy.valid()) return DescriptorError(errno, absl::StrCat("fcntl(F_DUPFD_CLOEXEC) of descriptor ", fd));
  return copy;
}

absl::StatusOr<UniqueFd> MoveToHighNumber(UniqueFd fd, int at_least) {
  if (fd.get() >= at_least) return fd;
  return DuplicateHigh(fd.get(), at_least);
}

absl::StatusOr<std::pair<UniqueFd, UniqueFd>> DatagramSocketPair() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0) {
    return DescriptorError(errno, "socketpair(AF_UNIX, SOCK_SEQPACKET)");
  }
  UniqueFd first(ends[0]), second(ends[1]);
  PYHOST_ASSIGN_OR_RETURN(first, MoveToHighNumber(std::move(first)));
  PYHOST_ASSIGN_OR_RETURN(second, MoveToHighNumber(std::move(second)));
  return std::make_pair(std::move(first), std::move(second));
}

absl::Status SendDatagram(int socket, std::span<const std::byte> bytes, std::span<const int> fds, Wait wait) {
  if (fds.size() > kMaxDescriptorsPerDatagram) {
    return absl::InvalidArgumentError(absl::StrCat("sendmsg: ", fds.size(), " descriptors in one datagram, at most ",
                                                   kMaxDescriptorsPerDatagram, " can be passed"));
  }
  alignas(cmsghdr) std::byte control[kControlBytes] = {};
  iovec part = {const_cast<std::byte*>(bytes.data()), bytes.size()};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (!fds.empty()) AddDescriptors(&message, control, fds);
  while (sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
    int error = errno;
    if (error == EPIPE || error == ECONNRESET) return absl::UnavailableError("sendmsg: the receiver is gone");
    if (error == EINTR) continue;
    if (error != EAGAIN) return DescriptorError(error, "sendmsg");
    PYHOST_RETURN_IF_ERROR(WaitWritable(socket, wait));
  }
  return absl::OkStatus();
}

absl::StatusOr<ReceivedDatagram> ReceiveDatagram(int socket, std::span<std::byte> buffer) {
  alignas(cmsghdr) std::byte control[kControlBytes];
  iovec part = {buffer.data(), buffer.size()};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  ssize_t size;
  do {
    size = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (size < 0 && errno == EINTR);
  ReceivedDatagram datagram;
  if (size < 0) {
    datagram.would_block = errno == EAGAIN;
    datagram.end_of_file = errno == ECONNRESET;
    if (datagram.would_block || datagram.end_of_file) return datagram;
    return ErrnoStatus(errno, "recvmsg");
  }
  datagram.descriptors = TakeDescriptors(&message, &datagram.fds);
  if (message.msg_flags & MSG_CTRUNC) {
    datagram.descriptors = DescriptorError(EMFILE, "recvmsg: descriptors of a datagram were cut off");
  }
  if (message.msg_flags & MSG_TRUNC) return absl::DataLossError("recvmsg: a datagram is longer than any we know");
  datagram.size = static_cast<size_t>(size);
  datagram.end_of_file = size == 0 && NothingWillCome(socket);
  return datagram;
}

bool PeerIsGone(int socket) {
  pollfd entry = {socket, 0, 0};
  return poll(&entry, 1, 0) > 0 && (entry.revents & (POLLHUP | POLLERR)) != 0;
}

}  // namespace pyhost
