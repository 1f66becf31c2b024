// SPDX-License-Identifier: Apache-2.0
//
// A reference to something callable: two words, no allocation, no ownership. The callable must
// outlive every call, so use it for parameters only (std::function would allocate for each parallel
// loop of a step).
#ifndef MASKKV_KERNELS_BASE_FUNCTION_REF_H_
#define MASKKV_KERNELS_BASE_FUNCTION_REF_H_

#include <concepts>
#include <functional>
#include <memory>
#include <type_traits>
#include <utility>

namespace maskkv::kernels {

template <typename Signature>
class FunctionRef;

template <typename R, typename... Args>
class FunctionRef<R(Args...)> {
 public:
  template <typename F>
  requires(!std::same_as<std::remove_cvref_t<F>, FunctionRef> &&
           std::is_invocable_r_v<R, F&, Args...>)
      FunctionRef(F&& callable)  // implicit: a lambda is passed where a FunctionRef is expected
      : object_(const_cast<void*>(static_cast<const void*>(std::addressof(callable)))),
        call_([](void* object, Args... args) -> R {
          return std::invoke(*static_cast<std::remove_reference_t<F>*>(object),
                             std::forward<Args>(args)...);
        }) {}

  R operator()(Args... args) const { return call_(object_, std::forward<Args>(args)...); }

 private:
  void* object_;
  R (*call_)(void*, Args...);
};

}  // namespace maskkv::kernels

#endif  // MASKKV_KERNELS_BASE_FUNCTION_REF_H_
