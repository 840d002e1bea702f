// Fuzz target: ParseCall() and ParseReply() on arbitrary bytes give DataLoss, or parts that lie in the message and
// together are all of it.

#include "absl/status/status.h"
#include "runtime/broker/call_frame.h"
#include "runtime/testing/fuzz_target.h"

namespace pyhost {
namespace {

using testing::FuzzInput;
using testing::Require;

bool LiesIn(FuzzInput part, FuzzInput whole) {
  return part.empty() || (part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size());
}

void LookAtCall(FuzzInput message) {
  const absl::StatusOr<CallView> call = ParseCall(message);
  if (!call.ok()) return Require(absl::IsDataLoss(call.status()), "a malformed call is DataLoss");
  Require(LiesIn(call->function, message) && LiesIn(call->arguments, message), "the parts of a call lie in it");
  Require(sizeof(CallHeader) + call->function.size() + call->arguments.size() == message.size(),
          "the parts of a call are all of it");
}

void LookAtReply(FuzzInput message) {
  const absl::StatusOr<ReplyView> reply = ParseReply(message);
  if (!reply.ok()) return Require(absl::IsDataLoss(reply.status()), "a malformed reply is DataLoss");
  Require(LiesIn(reply->outcome, message), "the outcome lies in its reply");
  if (reply->kind == ReplyKind::kLost) {
    Require(reply->outcome.size() == sizeof(LostWorker), "a lost call comes with its worker");
  }
}

PYHOST_FUZZ_TARGET(CallFrame, "runtime/broker/call_frame_corpus", kTruncated) {
  LookAtCall(input);
  LookAtReply(input);
}

}  // namespace
}  // namespace pyhost
