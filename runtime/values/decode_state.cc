#include "runtime/values/decode_state.h"

#include "absl/strings/str_cat.h"
#include "runtime/values/absl_text.h"
#include "runtime/values/known_calls.h"
#include "runtime/values/pickle_parser.h"

namespace pyhost::internal {

DecodeState::DecodeState(std::string_view pickle, const DecodeContext& context)
    : max_depth_(context.max_depth), budget_(UnfoldedLimit(context, pickle.size())) {
  absl::StatusOr<NodeIndex> parsed = ParsePickle(pickle, context, graph);
  if (parsed.ok()) {
    root = *parsed;
  } else {
    status = parsed.status();
  }
}

bool DecodeState::Fail(absl::StatusCode code, std::string_view why) {
  if (status.ok()) status = absl::Status(code, AbslText(why));
  return false;
}

bool DecodeState::Charge(uint64_t bytes) {
  if (bytes > budget_) {
    return Fail(absl::StatusCode::kResourceExhausted,
                "it unfolds to too much: a list, dict or text stands in it many times, or in itself "
                "(DecodeContext::max_unfolded_bytes)");
  }
  budget_ -= bytes;
  return true;
}

bool DecodeState::Enter() {
  if (depth >= max_depth_) {
    return Fail(absl::StatusCode::kResourceExhausted,
                absl::StrCat("it is nested deeper than ", max_depth_,
                             " levels, or contains itself (DecodeContext::max_depth)"));
  }
  ++depth;
  return true;
}

}  // namespace pyhost::internal
