// SPDX-License-Identifier: Apache-2.0
//
// Metrics that every service with requests has, told apart by the label `service` ("prefill",
// "decode"): in one process both write to one registry. What a service alone has is in its
// metrics.h.
#ifndef MASKKV_SERVICES_COMMON_REQUEST_METRICS_H_
#define MASKKV_SERVICES_COMMON_REQUEST_METRICS_H_

#include <array>

#include "core/telemetry/metrics.h"

namespace maskkv::services {

inline constexpr std::array kRequestSecondsBuckets{0.01, 0.025, 0.05, 0.1,  0.25,  0.5,   1.0,  2.5,
                                                   5.0,  10.0,  30.0, 60.0, 120.0, 300.0, 600.0};

inline constexpr telemetry::MetricSpec kRequestsRunning{
    "maskkv_requests_running", telemetry::MetricType::kGauge, "1",
    "Requests under way: prefills in their forward; answers whose sequences take steps or wait for "
    "readers.",
    "service"};
inline constexpr telemetry::MetricSpec kRequestsWaiting{
    "maskkv_requests_waiting", telemetry::MetricType::kGauge, "1",
    "Requests whose forward or first step has not begun.", "service"};
inline constexpr telemetry::MetricSpec kRequestsWaitingByReason{
    "maskkv_requests_waiting_by_reason", telemetry::MetricType::kGauge, "1",
    "What waits and for what: requests for the forward, for another run of the same request id, "
    "for "
    "prefill; sequences for a first place in the batch, for a place again after a higher priority "
    "took it, for their reader.",
    "reason,service"};
inline constexpr telemetry::MetricSpec kRequestsFinished{
    "maskkv_requests_finished_total", telemetry::MetricType::kCounter, "1",
    "Requests that ended, by how: of an answer the last sample's finish, of a prefill whether a "
    "forward ran.",
    "finish_reason,service"};
inline constexpr telemetry::MetricSpec kRequestDuration{"maskkv_request_duration_seconds",
                                                        telemetry::MetricType::kHistogram,
                                                        "seconds",
                                                        "From arrival of a request to its end.",
                                                        "service",
                                                        kRequestSecondsBuckets};
inline constexpr telemetry::MetricSpec kRequestQueue{
    "maskkv_request_queue_seconds",
    telemetry::MetricType::kHistogram,
    "seconds",
    "From arrival to the forward or the first step; an answer's without its prefill and mapping.",
    "service",
    kRequestSecondsBuckets};
inline constexpr telemetry::MetricSpec kPromptTokens{
    "maskkv_prompt_tokens_total", telemetry::MetricType::kCounter, "1",
    "Prompt tokens of prefills that were answered and of requests that began to decode.",
    "service"};

inline constexpr std::array kTurnSecondsBuckets{0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005,
                                                0.01,   0.025,   0.05,   0.1,   0.25,   0.5,
                                                1.0,    2.5,     5.0,    10.0};
inline constexpr telemetry::MetricSpec kTurnWait{
    "maskkv_turn_wait_seconds",
    telemetry::MetricType::kHistogram,
    "seconds",
    "Waits for the other side's turn at the cores: of decode, a step's for tiles of a prefill; of "
    "prefill, a tile's for a step. What does not wait is not counted.",
    "service",
    kTurnSecondsBuckets};
inline constexpr telemetry::MetricSpec kTurnsMissed{
    "maskkv_turns_missed_total", telemetry::MetricType::kCounter, "1",
    "Steps and tiles that ran beside the other side, whose process keeps its turn too long or is "
    "stopped.",
    "service"};

inline constexpr std::array kRequestMetricSpecs{
    kRequestsRunning,  kRequestsWaiting, kRequestsWaitingByReason,
    kRequestsFinished, kRequestDuration, kRequestQueue,
    kPromptTokens,     kTurnWait,        kTurnsMissed};

}  // namespace maskkv::services

#endif  // MASKKV_SERVICES_COMMON_REQUEST_METRICS_H_
