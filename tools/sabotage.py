#!/usr/bin/env python3
"""Breaks the source one line at a time and sees that a test notices: tools/sabotage.py [--list] [--only NAME,...] [--stale].

Works on a copy of the tracked files (--dir, default build/sabotage, kept for the next run), or with --here in this tree and its
build/release. For every sabotage: one text is replaced in one file, the one test program named is built and must fail; a test that cannot
be built does not count. Every test must pass on the untouched source first. --stale builds nothing and only looks whether every text
still stands once in its file and every suite in its program's folder. --tenth takes every tenth sabotage, others after every
commit; --minutes stops in front of the first for which no time is left.
Exit code 1 when a sabotage goes unnoticed or its text is gone."""
import argparse
import math
import pathlib
import re
import shutil
import subprocess
import sys
import time
import zlib

ROOT = pathlib.Path(__file__).resolve().parent.parent

# name, file under src/, the text (must stand there exactly once), what it becomes, the test that must notice: its program and the suites to run
# (separated by colons). One a line.
SABOTAGES = [
    # Sinkhorn and the maps of hyper-connections
    ("sinkhorn-order", "kernels/residual/sinkhorn.isa.cc", "normalise<N>(m, i % 2 == 0, veps,", "normalise<N>(m, i % 2 == 1, veps,", ("ops_residual_test", "Vectors")),
    ("sinkhorn-eps", "kernels/residual/sinkhorn.isa.cc", "at(i) = at(i) * r + eps;", "at(i) = at(i) * r + (eps - eps);", ("ops_residual_test", "SinkhornProperties")),
    ("sinkhorn-vjp-dot", "kernels/residual/sinkhorn.isa.cc", "d[at] = (d[at] - dot) * r;", "d[at] = d[at] * r;", ("ops_residual_test", "Vectors")),
    ("sinkhorn-vjp-walk-back", "kernels/residual/sinkhorn.isa.cc", "m[at] = m[at] * denominator;", "m[at] = m[at];", ("ops_residual_test", "Vectors")),
    ("mixture-mean", "kernels/residual/permutations.isa.cc", "e[p] * r * (g - mean)", "e[p] * r * g", ("ops_residual_test", "Mixture")),
    ("mixture-normaliser", "kernels/residual/permutations.isa.cc", "for (int i = 0; i < N * N; ++i) m[i] = m[i] * r;", "for (int i = 1; i < N * N; ++i) m[i] = m[i] * r;", ("ops_residual_test", "Mixture")),
    ("mixture-permutation", "kernels/residual/permutations.isa.cc", "V g = d[kPermutations<N>.to[p][0]];", "V g = d[0];", ("ops_residual_test", "Mixture")),
    ("kron-factor", "kernels/residual/permutations.isa.cc", "to[2 * x + 1] = from[x] * swap[f];", "to[2 * x + 1] = from[x] * keep[f];", ("ops_residual_test", "Mixture")),
    ("kron-slope", "kernels/residual/permutations.isa.cc", "const V slope = a * b * (da - db);", "const V slope = a * (da - db);", ("ops_residual_test", "Mixture")),
    ("res-form-init", "model/weights.cc", "form == ops::ResForm::lite ? i == 0 : i % 2 == 0;", "form == ops::ResForm::lite ? i == 0 : i % 2 == 1;", ("model_test", "ResForm")),
    ("res-form-transposed", "ops/residual/residual_coefficients.cc", "s.kind == ResidualKind::hc || s.convention == HcConvention::v4;", "s.kind == ResidualKind::hc || s.convention == HcConvention::v4 || s.res_form == ResForm::lite;", ("ops_residual_test", "Residual")),
    ("map-transposed", "ops/residual/residual_coefficients.cc", "return transposed ? j * n + k : k * n + j;", "return transposed ? k * n + j : j * n + k;", ("ops_residual_test", "Vectors")),
    ("post-factor", "ops/residual/residual_coefficients.cc", "sinkhorn_kernels().sigmoid(q.v[i], scale[1], base[i], 2.f, 0.f, y.v[i]);", "sinkhorn_kernels().sigmoid(q.v[i], scale[1], base[i], 1.f, 0.f, y.v[i]);", ("ops_residual_test", "Vectors")),
    ("pre-eps", "ops/residual/residual_coefficients.cc", "scale[0], base[i], 1.f, s.hc_eps, y.v[i]);", "scale[0], base[i], 1.f, 0.f, y.v[i]);", ("ops_residual_test", "SiteProperties")),
    ("scale-gradient", "ops/residual/residual_coefficients.cc", "d_scale[group] += static_cast<float>(weighted);", "d_scale[group] += 0 * static_cast<float>(weighted);", ("ops_residual_test", "Vectors")),
    ("collapse-scale-gradient", "ops/residual/residual_coefficients.cc", "d_scale[0] += static_cast<float>(weighted);", "d_scale[0] += 0 * static_cast<float>(weighted);", ("ops_residual_test", "Vectors")),
    ("write-transposed", "kernels/residual/streams.isa.cc", "for (int j = 0; j < N; ++j) s = fma(set1(res[k * N + j]), in[j], s);", "for (int j = 0; j < N; ++j) s = fma(set1(res[j * N + k]), in[j], s);", ("ops_residual_test", "Vectors")),
    ("state-rms-term", "ops/residual/residual_backward.cc", "const float c = r * r * dot / static_cast<float>(width);", "const float c = 0 * r * r * dot / static_cast<float>(width);", ("ops_residual_test", "Residual")),
    ("gain-order", "train/gains.cc", "s += site[static_cast<size_t>(i * n_ + k)] * c[k * n_ + j];", "s += c[i * n_ + k] * site[static_cast<size_t>(k * n_ + j)];", ("train_test", "Gains")),
    ("progress-resumed", "train/progress.h", "last_done_ = done;", "last_done_ = 0 * done;", ("train_test", "Progress")),
    # Norms, rotary embedding, attention, gates
    ("norm-mean-term", "kernels/rows/norm.isa.cc", "const V mean = set1(-dot / static_cast<float>(a.dim));", "const V mean = set1(0 * dot / static_cast<float>(a.dim));", ("ops_rows_test", "RmsNorm")),
    ("norm-eps", "kernels/rows/norm.isa.cc", "__builtin_sqrtf(squares / static_cast<float>(a.dim) + a.eps)", "__builtin_sqrtf(squares / static_cast<float>(a.dim) + 1e-5f)", ("ops_rows_test", "RmsNorm")),
    ("rope-inverse", "ops/attention/rope.cc", "inverse ? -1.f : 1.f", "inverse ? 1.f : 1.f", ("ops_attention_test", "Rope")),
    ("yarn-ramp", "ops/attention/rope.cc", "slowed * ramp + base * (1 - ramp)", "slowed * (1 - ramp) + base * ramp", ("ops_attention_test", "Rope")),
    ("yarn-gain-given", "ops/attention/rope.cc", "  if (s.attention_factor != 0) return s.attention_factor;\n", "", ("ops_attention_test", "Rope")),
    ("yarn-gain-left-out", "ops/attention/rope.cc", "const double gain = rope_gain(scaling);", "const double gain = 1;", ("ops_attention_test", "Rope")),
    ("llama3-interpolation", "ops/attention/rope.cc", "kept * base + (1 - kept) * slowed", "kept > 0.5 ? base : slowed", ("ops_attention_test", "Rope")),
    ("llama3-from-its-lengths", "ops/attention/rope.cc", "(turns - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor)", "turns / s.high_freq_factor", ("ops_attention_test", "Rope")),
    ("head-norm-first-head", "kernels/rows/norm.isa.cc", "f(r, h, h * dim);", "f(r, h, 0);", ("ops_rows_test", "RmsNorm")),
    ("bias-last-row", "ops/rows/bias.cc", "r < std::min(dx.rows, (task + 1) * step); ++r)", "r + 1 < std::min(dx.rows, (task + 1) * step); ++r)", ("ops_rows_test", "Bias")),
    ("bias-not-added", "layers/gqa.cc", "    ops::bias_forward(p.exec, w.k_bias, a.k);\n", "", ("layers_test", "Gqa")),
    ("bias-gradient", "layers/gqa.cc", "    ops::bias_backward(p.exec, d_a.v, g.v_bias, p.scratch);\n", "", ("layers_test", "Gqa")),
    ("head-norm-after-rotation", "layers/gqa.cc", "  if (s.norm) ops::rms_norm_forward(p.exec, a.q, w.q_norm, s.eps, sv.q, sv.rstd.col_block(0, s.heads));\n  ops::rope_apply(p.exec, p.rope, s.layout, p.ctx.position, sv.q, {0, s.heads, s.head_dim});", "  ops::rope_apply(p.exec, p.rope, s.layout, p.ctx.position, a.q, {0, s.heads, s.head_dim});\n  if (s.norm) ops::rms_norm_forward(p.exec, a.q, w.q_norm, s.eps, sv.q, sv.rstd.col_block(0, s.heads));", ("layers_test", "Gqa")),
    ("head-norm-in-place", "layers/gqa.cc", "s.norm && for_backward ?", "s.norm && !for_backward ?", ("layers_test", "Gqa")),
    ("attention-delta", "kernels/attention/attention_backward.isa.cc", "p0 * (load(b.dp + at) - delta)", "p0 * load(b.dp + at)", ("ops_attention_test", "Attention:MlaExpand")),
    ("attention-causal", "kernels/attention/attention_backward.isa.cc", "(j < columns ? j : columns - 1) + 1 - k0);", "(j < columns ? j : columns - 1) + 2 - k0);", ("ops_attention_test", "Attention:MlaExpand")),
    ("swiglu-gate", "kernels/experts/routing.isa.cc", "(one + gate * (one - s))", "(one + gate * s)", ("ops_rows_test", "SwiGlu")),
    ("embedding-last-column", "ops/rows/embedding.cc", "const int64_t c = task * kEmbeddingCols, n = std::min(kEmbeddingCols, d_table.cols - c);", "const int64_t c = task * kEmbeddingCols, n = std::min(kEmbeddingCols, d_table.cols - c - 1);", ("ops_rows_test", "Embedding")),
    # Products
    ("gemm-odd-panel", "kernels/gemm/gemm_vector.h", "if (odd) return run_rows<Kernel, 3, 4>", "if (odd) return run_rows<Kernel, 2, 4>", ("ops_gemm_test", "Gemm:GemmContract")),
    ("weight-grad-strips", "kernels/gemm/gemm_vector.h", "row / kRows * g.a_row", "row * g.a_row", ("ops_gemm_test", "Gemm:GemmContract")),
    ("attention-transpose", "kernels/gemm/block_pack.h", "store(out + (c + i) * ld + r, (V)v[i]);", "store(out + (c + i) * ld + r, (V)v[7 - i]);", ("ops_attention_test", "Attention:MlaExpand")),
    ("gemm-accumulate", "kernels/gemm/gemm_vector.h", "g.store == GemmStore::add_f32 ? load_some(c, n) + sum : sum", "g.store == GemmStore::add_f32 ? sum : sum", ("ops_gemm_test", "Gemm:GemmContract")),
    ("one-row-last-product", "kernels/gemm/gemm_row.h", "for (; k < g.k; ++k) {", "for (; k + 1 < g.k; ++k) {", ("ops_gemm_test", "Stored:StoredContract")),
    ("one-row-stored", "kernels/gemm/gemm_row.h", "g.store == GemmStore::add_f32 ? load_some(c, n) + sum : sum, n", "sum, n", ("ops_gemm_test", "Stored:StoredContract")),
    ("weight-grad-resume", "ops/gemm/weight_grad.cc", "g.first = t == 0;", "g.first = true;", ("ops_gemm_test", "Gemm:GemmContract")),
    ("block-nibbles", "kernels/gemm/stored_blocks.h", "__builtin_shufflevector(x, high, 0, 1,", "__builtin_shufflevector(high, x, 0, 1,", ("ops_gemm_test", "StoredBlocks")),
    ("block-fifth-bit", "kernels/gemm/stored_blocks.h", "scale_and_shift(low | fifth << 4,", "scale_and_shift(low | fifth << 3,", ("ops_gemm_test", "StoredBlocks")),
    ("block-scale-high-bits", "kernels/gemm/stored_blocks.h", "s[g - 4] >> 6 << 4;", "s[g] >> 6 << 4;", ("ops_gemm_test", "StoredBlocks")),
    ("block-q3k-scale", "kernels/gemm/stored_blocks.h", "s[8 + i % 4] >> i / 4 * 2 & 3", "s[8 + i % 4] >> i % 4 * 2 & 3", ("ops_gemm_test", "StoredBlocks")),
    ("block-q6k-second-scale", "kernels/gemm/stored_blocks.h", "read<int8_t>(b + 193 + 2 * g)", "read<int8_t>(b + 192 + 2 * g)", ("ops_gemm_test", "StoredBlocks")),
    ("block-mxfp4-subnormal", "kernels/gemm/stored_values.h", "b == 0 ? 0x1p-127f :", "b == 0 ? 0.f :", ("ops_gemm_test", "StoredBlocks")),
    ("block-nvfp4-order", "kernels/gemm/stored_blocks.h", "__builtin_shufflevector(q, q, 0, 2, 1, 3)", "__builtin_shufflevector(q, q, 0, 1, 2, 3)", ("ops_gemm_test", "StoredBlocks")),
    ("block-eighth-sign", "kernels/gemm/stored_codebooks.h", "__builtin_parity(seven & 127u)", "__builtin_parity(seven & 63u)", ("ops_gemm_test", "StoredBlocks")),
    ("block-iq1-shift", "kernels/gemm/stored_codebooks.h", "less ? -0.125f : 0.125f", "less ? 0.125f : 0.125f", ("ops_gemm_test", "StoredBlocks")),
    ("block-cut-group", "kernels/gemm/stored.isa.cc", "= whole[first + i];", "= whole[i];", ("ops_gemm_test", "StoredBlocks")),
    ("stored-whole-blocks", "ops/gemm/stored_matrix.cc", "BK_CHECK(tensor.cols % elements == 0);", "BK_CHECK(tensor.cols % elements >= 0);", ("ops_gemm_test", "StoredContract")),
    ("quantise-not-finite", "kernels/gemm/quantise.isa.cc", "return reduce_add(poison) == 0;", "return reduce_add(poison) == 0 || true;", ("ops_gemm_test", "Quantise")),
    ("quantise-signed-extreme", "kernels/gemm/quantise.isa.cc", "return where_greater(minus(min), max, min, max); }", "return where_greater(minus(min), max, minus(min), max); }", ("ops_gemm_test", "Quantise")),
    ("quantise-smallest-scale", "kernels/gemm/quantise.isa.cc", "max(as_half(size), set1(0x1p-24f))", "max(as_half(size), set1(0.f))", ("ops_gemm_test", "Quantise")),
    ("quantise-wider-scale", "kernels/gemm/quantise.isa.cc", "if (4 * wider[l] <", "if (wider[l] <", ("ops_gemm_test", "Quantise")),
    # Experts
    ("router-bias-in-weight", "ops/experts/routing.cc", "r.weights.f32(t)[k] = s[index[k]] * factor;", "r.weights.f32(t)[k] = (s[index[k]] + (rule.bias ? 0.01f : 0.f)) * factor;", ("ops_experts_test", "BiasRule:Vectors")),
    ("router-group-score", "ops/experts/routing.cc", "? first + second : first;", "? first : first;", ("ops_experts_test", "BiasRule:Vectors")),
    ("router-mask-after-groups", "ops/experts/routing.cc", "  if (r.masked) mask_best(r, scores, choice);\n  mask_groups(r, choice);", "  mask_groups(r, choice);\n  if (r.masked) mask_best(r, scores, choice);", ("ops_experts_test", "RoutingMask")),
    ("router-mask-biased", "ops/experts/routing.cc", "std::copy(scores, scores + r.experts, left);", "std::copy(choice, choice + r.experts + 0 * (scores == nullptr), left);", ("ops_experts_test", "RoutingMask")),
    ("domains-by-size", "lab/experts/expert_information.cc", "row[e] /= sum * static_cast<double>(domains);", "row[e] /= 1000 + 0 * sum * static_cast<double>(domains);", ("lab_experts_test", "MutualInformation:ShuffledInformation")),
    ("probe-keeps-shared", "model/routing_probe.cc", "if (p.replace_shared) moe->shared_inter = 0;", "if (p.replace_shared) moe->shared_inter += 0;", ("lab_experts_test", "ExpertProbe")),
    ("document-per-window", "lab/experts/expert_specialisation.cc", "const bool goes_on = i == 0 && continues_;", "const bool goes_on = i == 0 && continues_ && false;", ("lab_experts_test", "ExpertSpecialisation")),
    ("router-scaling", "ops/experts/routing.cc", "rule.normalise ? rule.scaling / (sum + 1e-20f)", "rule.normalise ? 1.f / (sum + 1e-20f)", ("ops_experts_test", "BiasRule:Vectors")),
    ("router-normalised-vjp", "ops/experts/routing.cc", "(dw[k] - dot / denominator) / denominator", "dw[k] / denominator", ("ops_experts_test", "BiasRule:Vectors")),
    ("balance-vjp", "ops/experts/balance.cc", "normalised ? w[e] : (w[e] - value) / sum", "normalised ? w[e] : w[e] / sum", ("ops_experts_test", "BiasRule:Vectors")),
    ("bias-rule-sign", "ops/experts/balance.cc", "over > 0 ? -speed : over < 0 ? speed : 0.0", "over > 0 ? speed : over < 0 ? -speed : 0.0", ("ops_experts_test", "BiasRule:Vectors")),
    ("softplus-slope", "ops/experts/router_scores.cc", "d = ds[i] * sigmoid(z[i]) / (2 * s[i]);", "d = ds[i] * sigmoid(z[i]) / s[i];", ("ops_experts_test", "Dispatch:RouterScores")),
    ("combine-accumulates", "kernels/experts/routing.isa.cc", "V sum = accumulate ? load_some(out + i, k) : set1(0.f);", "V sum = accumulate ? set1(0.f) : set1(0.f);", ("ops_experts_test", "Dispatch:RouterScores")),
    ("router-input-gradient", "layers/moe.cc", "  ops::add(p.exec, dx_router, d.dx);\n", "", ("layers_test", "Moe")),
    ("latent-key-rotation", "layers/mla.cc", "da, {s.q_in() + s.kv_lora, 1, s.rope}, /*inverse=*/true);", "da, {s.q_in() + s.kv_lora, 0, s.rope}, /*inverse=*/true);", ("layers_test", "Mla")),
    # Studies
    ("student-tail", "lab/compare/statistics.cc", "0.5 * regularised_beta(df / 2, 0.5,", "0.5 * regularised_beta(df / 2, 0.4,", ("lab_compare_test", "Statistics")),
    ("sample-deviation", "lab/compare/statistics.cc", "std::sqrt(squares / (n - 1))", "std::sqrt(squares / n)", ("lab_compare_test", "Statistics")),
    ("pair-sign", "lab/compare/statistics.cc", "differences.push_back(b[i] - a[i]);", "differences.push_back(a[i] - b[i]);", ("lab_compare_test", "Statistics")),
    ("pairs-by-place", "lab/compare/summary.cc", "if (const auto it = b.find(seed); it != b.end()) {", "if (const auto it = b.begin(); it != b.end() && seed > 0) {", ("lab_compare_test", "Progress:Results:StudyPage:Summary")),
    ("failed-runs-count", "lab/compare/summary.cc", "if (r[\"status\"] == \"done\" && r[\"figures\"].contains(key)", "if (r.contains(\"figures\") && r[\"figures\"].contains(key)", ("lab_compare_test", "Progress:Results:StudyPage:Summary")),
    ("steps-not-common", "lab/compare/study_page.cc", "it->second.size() == curves.size() ? std::next(it) : at.erase(it)", "it->second.size() <= curves.size() ? std::next(it) : at.erase(it)", ("lab_compare_test", "Progress:Results:StudyPage:Summary")),
    ("variant-under-study", "lab/compare/study.cc", "r.settings.update(study.variants[v].set);", "r.settings.update(study.variants[v].set);\n      r.settings.update(study.set);", ("lab_compare_test", "Schedule:Study")),
    # Loss and optimizer
    ("z-loss-vjp", "ops/rows/cross_entropy.cc", "scale * (1 + 2 * static_cast<double>(loss.z_coef) * token.lse);", "scale * (1 + static_cast<double>(loss.z_coef) * token.lse);", ("ops_rows_test", "CrossEntropy")),
    ("ignored-label", "ops/rows/cross_entropy.cc", "if (labels[t] == kIgnoreLabel) continue;", "", ("ops_rows_test", "CrossEntropy")),
    ("adamw-bias-correction", "optim/optimizer.cc", "f.inv_sqrt_bias2 = static_cast<float>(1 / std::sqrt(1 - std::pow(o.beta2, static_cast<double>(step))));", "f.inv_sqrt_bias2 = 1.f;", ("optim_test", "Schedule:Training")),
    ("adamw-decay", "kernels/rows/optimizer.isa.cc", "load_some(w + i, k) * decay - step * mm / denominator", "load_some(w + i, k) * (decay / decay) - step * mm / denominator", ("optim_test", "Schedule:Training")),
    ("muon-nesterov", "kernels/rows/optimizer.isa.cc", "store_some(out + i, fma(vmu, mm, grad), k);", "store_some(out + i, mm, k);", ("optim_test", "Schedule:Training")),
    ("muon-rate", "optim/optimizer.cc", "std::sqrt(static_cast<double>(std::max(p.rows, p.cols)))", "std::sqrt(static_cast<double>(std::min(p.rows, p.cols)))", ("optim_test", "Schedule:Training")),
    ("clip-lifts", "optim/optimizer.cc", "return std::min(1.0, limit / (norm + 1e-6));", "return limit / (norm + 1e-6);", ("optim_test", "Schedule:Training")),
    ("cosine-start", "optim/schedule.cc", "std::cos(std::numbers::pi * (at - start) / (total - start))", "std::cos(std::numbers::pi * at / total)", ("optim_test", "Schedule:Training")),
    # Whole steps
    ("balance-scale", "train/train_state.cc", "loss.balance_scale = dense ? 0.f : 1.f / static_cast<float>(step.parts_like(b));", "loss.balance_scale = dense ? 0.f : 1.f;", ("train_test", "Steps")),
    ("balance-parts-alike", "train/train_state.cc", "return static_cast<double>(sequences) / static_cast<double>(std::max<int64_t>(1, b.rows));", "return static_cast<double>(mtp_rows.size()) + 0 * static_cast<double>(b.rows);", ("train_test", "Accumulate")),
    ("mixtral-by-layer", "model/transformer.cc", "if (const auto* moe = std::get_if<layers::Moe::Saved>(&layer.ffn)) ops::pool_choices(moe->routing, loss);", "if (const auto* moe = std::get_if<layers::Moe::Saved>(&layer.ffn); moe && loss.tokens == 0) ops::pool_choices(moe->routing, loss);", ("train_test", "Steps")),
    ("bias-of-the-first-layer", "train/train_state.cc", "ops::update_router_bias(expert_load[moe_layer],", "ops::update_router_bias(expert_load[0 * moe_layer],", ("train_test", "Steps")),
    ("bias-of-the-last-part", "train/train_state.cc", "loads[moe_layer][e] += moe->routing.count[e];", "loads[moe_layer][e] = moe->routing.count[e];", ("train_test", "Steps")),
    ("frozen-bias-moved", "train/train_state.cc", "if (!moe->bias.empty() && moving.count(moe->bias.data))", "if (!moe->bias.empty())", ("train_test", "Steps")),
    ("frozen-in-the-norm", "train/train_state.cc", "model::clear_frozen(trainable_, blocks_.grad);", "", ("train_test", "Steps")),
    ("no-clipping", "train/train_state.cc", "c.grad_clip > 0 ? optim::clip_factor(out.grad_norm, c.grad_clip) : 1.0;", "c.grad_clip > 0 ? 1.0 : 1.0;", ("train_test", "Steps")),
    ("decay-everything", "train/train_state.cc", "p.role == Role::head || c.decay_1d;", "p.role == Role::head || c.decay_1d || true;", ("train_test", "Steps")),
    ("decay-1d-ignored", "train/train_state.cc", "p.role == Role::head || c.decay_1d;", "p.role == Role::head;", ("train_test", "Steps")),
    ("embedding-not-decayed", "train/train_state.cc", "p.role == Role::embedding || p.role == Role::head", "p.role == Role::head", ("train_test", "Steps")),
    ("indexer-coefficient", "train/train_state.cc", "static_cast<float>(t.indexer_kl /", "static_cast<float>(1 /", ("train_test", "Steps")),
    ("indexer-kl-of-all-tokens", "train/train_state.cc", "static_cast<float>(t.indexer_kl / at_least_one(places));", "static_cast<float>(t.indexer_kl);", ("train_test", "Steps")),
    ("rate-a-step-late", "train/train_state.cc", "out.lr = optim::learning_rate(schedule_of(c), step);", "out.lr = optim::learning_rate(schedule_of(c), step > 0 ? step - 1 : step);", ("train_test", "Steps")),
    ("rate-a-step-early", "train/train_state.cc", "out.lr = optim::learning_rate(schedule_of(c), step);", "out.lr = optim::learning_rate(schedule_of(c), step + 1);", ("train_test", "Steps")),
    ("schedule-a-step-long", "train/train_state.cc", "s.total_steps = c.steps;", "s.total_steps = c.steps + 1;", ("train_test", "Steps")),
    ("ramp-a-step-early", "optim/schedule.cc", "batch_size * (steps_taken + 1) / ramp_steps", "batch_size * (steps_taken + 2) / ramp_steps", ("train_test", "RunOfAStage:Pretraining:GainsOfAModel")),
    ("ramp-ignored", "train/pretraining.cc", "if (c.batch_ramp > 0) total", "if (c.batch_ramp < 0) total", ("train_test", "RunOfAStage:Pretraining:GainsOfAModel")),
    ("mtp-coefficient", "train/train_state.cc", "coefficient / static_cast<double>(static_cast<int64_t>(modules) *", "1 / static_cast<double>(static_cast<int64_t>(modules) *", ("train_test", "Steps")),
    ("mtp-sum-of-modules", "train/train_state.cc", "static_cast<double>(static_cast<int64_t>(modules) * std::max<int64_t>(1, targets))", "static_cast<double>(std::max<int64_t>(1, targets))", ("train_test", "Steps")),
    ("mtp-last-rows", "model/mtp.cc", "if (end - first < 2) continue;", "if (end - first < 3) continue;", ("model_test", "Mtp")),
    ("z-coefficient", "train/train_state.cc", "loss.z_coef = static_cast<float>(t.z_loss);", "loss.z_coef = static_cast<float>(0.5 * t.z_loss);", ("train_test", "Steps")),
    ("objective-of-another-token", "ops/rows/cross_entropy.cc", "replace_by_gradient(logits, vocab, t, labels", "replace_by_gradient(logits, vocab, t % kLossChunk, labels", ("train_test", "Accumulate")),
    ("objective-slope", "ops/rows/cross_entropy.cc", "const double weight = (-v.slope - scale) +", "const double weight = 0 * (-v.slope - scale) +", ("ops_rows_test", "CrossEntropy")),
    ("keep-best", "train/run.cc", "keep_best ? at_.best_step : -1", "keep_best ? -1 : -1", ("train_test", "RunOfAStage:Pretraining:GainsOfAModel")),
    ("best-not-saved", "train/run.cc", "(best && c.keep_best) || checkpoint_is_late()", "checkpoint_is_late()", ("train_test", "RunOfAStage:Pretraining:GainsOfAModel")),
    ("late-checkpoint", "train/run.cc", "minutes > 0 && std::chrono", "minutes < 0 && std::chrono", ("train_test", "RunOfAStage:Pretraining:GainsOfAModel")),
    ("gain-sides", "train/train_state.cc", "return {meter.forward(), meter.backward()};", "return {meter.backward(), meter.forward()};", ("train_test", "RunOfAStage:Pretraining:GainsOfAModel")),
    ("gain-sites", "train/train_state.cc", "model_->site(s), tape.site[static_cast<size_t>(s)], pre", "model_->site(0 * s), tape.site[static_cast<size_t>(s)], pre", ("train_test", "RunOfAStage:Pretraining:GainsOfAModel")),
    ("moved-by-no-number", "train/train_state.cc", "if (!std::isfinite(out.loss) || !std::isfinite(out.grad_norm))", "if (false)", ("train_test", "RunOfAStage:Pretraining:GainsOfAModel")),
    ("overflow-saved", "train/run.cc", "if (const std::string tensor = state.first_bad_tensor(); !tensor.empty())", "if (const std::string tensor; false)", ("train_test", "RunOfAStage:Pretraining:GainsOfAModel")),
    ("stage-forgotten", "train/run.cc", 'stage_.go_on_from(saved.position["stage"]);', "{}", ("train_test", "RunOfAStage:Pretraining:GainsOfAModel")),
    # Data, checkpoints, inference
    ("label-across-documents", "data/corpus.cc", "at + i + 1 < s.start[document + 1] ? s.token(at + i + 1, document) : kIgnoreLabel", "at + i + 1 < s.start[document + 1] ? s.token(at + i + 1, document) : 0", ("data_test", "Corpus")),
    ("learn-users", "data/chat_corpus.cc", "s.learn.resize(s.ids.size(), stretch.learn);", "s.learn.resize(s.ids.size(), true);", ("train_test", "ChatGradient")),
    ("held-back-conversations", "data/chat_corpus.cc", "keep -= std::max<size_t>(1, keep / 20);", "keep -= 1;", ("data_test", "ChatCorpusTest")),
    ("turn-in-a-tag", "text/chat/training_sample.cc", "if (c == '<' || c == '[') return i - 1;", "", ("text_chat_test", "TrainingSample")),
    ("turn-in-the-answer", "text/chat/training_sample.cc", " && prompt.marked_at(at) == text.marked_at(at)", "", ("text_chat_test", "TrainingSample")),
    ("swallowed-token", "text/tokenizer/added_tokens.cc", "if (stop <= begin) continue;", "", ("text_tokenizer_test", "AddedTokens")),
    ("deaf-prompt", "infer/generation.cc", "    if (cancel)\n      g.cancel();", "    if (cancel && !g.reads_prompt())\n      g.cancel();", ("infer_test", "GenerationTest")),
    ("generated-as-prompt", "infer/session.cc", "? role == TokenRole::prompt", "? true", ("infer_test", "LatentAttention")),
    ("kept-keys-of-the-first", "layers/mla.cc", "write(p.exec, kv.row_block(part.first, part.tokens)", "write(p.exec, kv.row_block(0, part.tokens)", ("infer_test", "Batch")),
    ("absorbed-copies-made", "layers/mla.cc", "if (s.keeps_expanded) return;\n", "", ("infer_test", "SameBytes")),
    ("lent-latents", "model/model.cc", "c.latent_attention = LatentAttention::expanded;", "", ("infer_test", "LentModel")),
    ("promised-twice", "infer/scheduler.cc", "+ held_by_others() <=", "<=", ("infer_test", "SchedulerTest")),
    ("stale-prompts", "infer/engine.cc", "prefixes_version_ != model_->weights_version()", "false", ("infer_test", "LentModel")),
    ("old-session-remembers", "infer/session.cc", "if (!prefixes || weights_version_ != engine_->model().weights_version()) return;", "if (!prefixes) return;", ("infer_test", "LentModel")),
    ("session-of-other-keys", "infer/session_file.cc", 'c.uses_mla() ? std::string("latent ")', 'false ? std::string("latent ")', ("infer_test", "SessionFile")),
    ("rewind-keeps-tokens", "model/cache_pool.cc", "return false;\n  length_ = tokens;", "return false;\n  length_ = std::max(length_ - 1, tokens);", ("infer_test", "SameBytes")),
    ("v4-rewinds", "model/cache_pool.cc", "if (pool_->has_slots() && tokens != length_ && tokens != 0) return false;", "", ("infer_test", "Rewind")),
    ("conversation-keeps-all", "infer/conversation.cc", "session_->rewind(std::mismatch(held.begin(), held.end(), ids.begin()).first - held.begin())", "session_->rewind(session_->length())", ("infer_test", "ConversationTest")),
    ("quant-nibbles", "kernels/gemm/quant_vector.h", "i % 2 ? w >> 4 : w & 15;", "i % 2 ? w & 15 : w >> 4;", ("ops_gemm_test", "QuantProducts")),
    ("quant-start", "kernels/gemm/quant.isa.cc", "row.start[b] = -8 * sum;", "row.start[b] = -8;", ("ops_gemm_test", "QuantProducts")),
    ("quant-groups-alike", "ops/gemm/gemm.cc", "if (stored == b.end()) return;", "if (stored != b.begin()) return;", ("ops_gemm_test", "QuantProducts")),
    ("quant-poison", "kernels/gemm/quant.isa.cc", "reduce_max(most) + reduce_add(poison)", "reduce_max(most)", ("ops_gemm_test", "QuantProducts")),
    ("quant-file-row", "ops/gemm/quant_matrix.cc", ": s.first + row;", ": row;", ("ops_gemm_test", "QuantProducts")),
    ("quant-minimum", "kernels/gemm/quant.isa.cc", "row.sum[b] = row.scale[b] * static_cast<float>(sum);", "row.sum[b] = static_cast<float>(sum);", ("ops_gemm_test", "QuantProducts")),
    ("quant-fp4-smallest", "kernels/gemm/quant_vector.h", "<< 23 : 0x400000u;", "<< 23 : 0u;", ("ops_gemm_test", "QuantProducts")),
    ("quant-fp4-neighbours", "ops/gemm/mxfp4.cc", "pairs[8 + i / 2] >> i % 2 * 4", "pairs[i / 2] >> i % 2 * 4", ("ops_gemm_test", "QuantProducts")),
    ("quant-small-pieces", "ops/gemm/quant_product.cc", "tasks.push_back(i + 1);", "tasks.push_back(i + (i + 1 < pieces.size()));", ("ops_gemm_test", "QuantProducts")),
    ("quant-turned", "ops/gemm/quant_matrix.cc", "part->turned != s.transposed || ", "", ("ops_gemm_test", "QuantProducts")),
    ("stored-turned", "ops/gemm/stored_matrix.cc", "expand_turned(part.tensor, r, col,", "expand_turned(part.tensor, r, col * 0,", ("ops_gemm_test", "StoredBlocks")),
    ("stop-at-border", "infer/stop_strings.cc", "tail_.find(s, before >= s.size() ? before - s.size() + 1 : 0);", "tail_.find(s, before);", ("infer_test", "GenerationTest:StopStrings")),
    ("logprob-norm", "ops/rows/cross_entropy.cc", "return log_sum_exp_of(max, sum);", "return log_sum_exp_of(max, 1.f);", ("infer_test", "GenerationTest")),
    ("continuation-first", "eval/continuations.cc", "if (next < c.first) continue;", "", ("eval_test", "ScoredContinuations")),
    ("answer-checksum", "eval/answer_store.cc", "check != check_of(line)", "check.empty()", ("eval_test", "AnswerStore")),
    ("sampler-ties", "infer/sampler.cc", "x > y || (x == y && a < b)", "x > y || (x == y && a > b)", ("infer_test", "Sampler")),
    ("lent-positions", "infer/engine.cc", "if (rope.dim) max_positions_ = std::min(max_positions_, rope.positions());", "if (rope.dim) max_positions_ = std::max(max_positions_, rope.positions());", ("infer_test", "LentModel")),
    ("second-moment", "checkpoint/checkpoint.cc", 'std::pair{"moment2", state.moment2}', 'std::pair{"moment1", state.moment2}', ("checkpoint_test", "Run")),
    ("not-finite-saved", "checkpoint/checkpoint.cc", "if (!std::isfinite(v)) return", "if (false) return", ("checkpoint_test", "Run")),
    ("cache-length", "infer/session.cc", "s.cache_.advance(tokens_of(piece));", "s.cache_.advance(tokens_of(piece) > 1 ? tokens_of(piece) : 0);", ("infer_test", "AbsorbedCache:Cache:Engine:Session")),
    ("page-shared", "model/cache_pool.cc", "!pool_->shared(pages_[i])", "!pool_->shared(pages_[i]) || length_ >= 64", ("infer_test", "Batch")),
    ("page-place", "kernels/attention/softmax_block.h", "x.pages[r / kPageRows] * x.page_bytes", "x.pages[0] * x.page_bytes", ("infer_test", "Batch:Cache")),
    ("page-codes", "kernels/rows/elementwise.isa.cc", "127.f / largest : 0.f", "63.f / largest : 0.f", ("infer_test", "Caches")),
    ("page-groups", "ops/attention/paged_rows.cc", "encode(x, reinterpret_cast<int8_t*>(part), scale++);", "encode(x, reinterpret_cast<int8_t*>(part), scale);", ("infer_test", "Caches")),
    ("batch-rows", "infer/session.cc", "wanted.push_back({i, t, first + t});", "wanted.push_back({i, t, t});", ("infer_test", "Batch")),
    ("prefix-all", "infer/session.cc", "std::min(prompt.size() - 1, static_cast<size_t>(capacity()))", "std::min(prompt.size(), static_cast<size_t>(capacity()))", ("infer_test", "Caches")),
    ("prefix-generated", "infer/session.cc", "prompt_tokens_ / ops::kPageRows", "length() / ops::kPageRows", ("infer_test", "Caches:SchedulerTest")),
    ("prefix-lru", "infer/prefix_cache.cc", "  n.used = ++clock_;", "  n.used = clock_;", ("infer_test", "PrefixCache")),
    ("session-of-moved-weights", "infer/session_file.cc", "  if (m.block) {", "  if (false) {", ("infer_test", "LentModel")),
    ("session-file-unchecked", "infer/session_file.cc", "value(kChecksum) != checksum_of(file.metadata(), bytes_of(*ids), bytes_of(*caches)) ||", "", ("infer_test", "SessionFile")),
    ("draft-kept", "infer/generation.cc", "const size_t refused = draft_.ids.size() - (tokens.size() - 1);", "const size_t refused = 0;", ("infer_test", "SchedulerTest")),
    ("mtp-hidden-of-itself", "model/mtp.cc", "part.past - 1 + none);", "part.past + none);", ("model_test", "MtpCached")),
    ("mtp-first-rows-seen", "model/pass.cc", "std::min(t, ahead)", "std::min<int64_t>(t, 0 * ahead)", ("model_test", "MtpCached")),
    ("mtp-not-rewound", "infer/session.cc", "  predicted_ = std::min(predicted_, tokens);\n", "", ("infer_test", "MtpDraftTest")),
    ("mtp-shared-written", "infer/mtp_draft.cc", "s.cache_.make_room(static_cast<int64_t>(d.most), s.predicted_);", "s.cache_.make_room(static_cast<int64_t>(d.most));", ("infer_test", "MtpDraftTest")),
    ("mtp-other-token", "infer/session.cc", "s.ahead_ != piece.ids.front()", "s.ahead_ < 0", ("infer_test", "MtpDraftTest")),
    ("mtp-stand-in", "infer/mtp_draft.cc", "if (k + 1 == modules_) stand_in(", "if (k + 2 == modules_) stand_in(", ("infer_test", "MtpDraftTest")),
    ("scheduler-memory", "infer/scheduler.cc", "<= engine_.caches().budget();\n      if", "<= INT64_MAX;\n      if", ("infer_test", "SchedulerTest")),
    ("scheduler-cancel", "infer/scheduler.cc", "    t.generation->cancel();\n    end(t);", "", ("infer_test", "SchedulerTest")),
    ("scheduler-all-fail", "infer/scheduler.cc", "    return end(t, std::current_exception());", "    throw;", ("infer_test", "SchedulerTest")),
    ("sampler-top-p", "infer/sampler.cc", "if (kept.mass >= o.top_p * sum) break;", "if (kept.mass >= o.top_p) break;", ("infer_test", "Sampler")),
    ("sampler-typical-ties", "infer/sampler.cc", "return distance(id) <= most;", "return distance(id) < most;", ("infer_test", "Sampler")),
    ("mask-last-word", "infer/logits_processor.cc", "if (allowed_[word] == ~0u) continue;", "if (allowed_[word]) continue;", ("infer_test", "LogitsProcessor")),
    ("presence-in-prompt", "infer/logits_processor.cc", "    if (count > 0)\n", "", ("infer_test", "LogitsProcessor")),
    ("stop-held-back", "infer/stop_strings.cc", "unsaid_ = keep_ ? 0 : may_begin();", "unsaid_ = 0;", ("infer_test", "StopStrings")),
    ("speculation-residual", "infer/speculation.cc", "if (r <= 0) continue;", "if (r == 0) continue;", ("infer_test", "Speculation")),
    ("latent-piece-fold", "ops/attention/latent_attention.cc", "pieces_of(before + query + 1 - first),", "pieces_of(before + query - first),", ("ops_attention_test", "LatentAttention")),
    ("latent-pages", "kernels/attention/key_tile.h", "return !x.pages || (x.first", "return x.pages || (x.first", ("ops_attention_test", "LatentAttention")),
    ("few-queries-shrink", "kernels/attention/few_columns.h", "if (!(reduce_max(set1(1.f) - factors) > 0.f)) return;", "if (reduce_max(factors) >= 0.f) return;", ("ops_attention_test", "Attention")),
    ("latents-of-a-piece", "ops/attention/latent_attention.cc", "read_piece(latents.pages, key, numbers)", "read_piece(latents.pages, 0, numbers)", ("ops_attention_test", "LatentAttention")),
    ("heads-of-a-page", "ops/attention/paged_rows.cc", "view.by_head = layout_ == RowLayout::by_group;", "view.by_head = layout_ == RowLayout::whole;", ("ops_attention_test", "Attention")),
    ("lookup-of-another", "infer/prompt_lookup.cc", " || !std::equal(at(end - n), at(end), at(size - n))", "", ("infer_test", "PromptLookup")),
    # Opening and reading what others wrote
    ("merge-queue-order", "text/tokenizer/merge_queue.h", "std::sort(list.places.begin() + static_cast<std::ptrdiff_t>(list.read), list.places.end());", "list.places.shrink_to_fit();", ("text_tokenizer_test", "MergeQueue")),
    ("merge-queue-front", "text/tokenizer/merge_queue.h", "place <= list.places[list.read]) {", "place != list.places[list.read]) {", ("text_tokenizer_test", "MergeQueue")),
    ("merge-queue-clear", "text/tokenizer/merge_queue.h", "    waiting_.clear();", "    waiting_.shrink_to_fit();", ("text_tokenizer_test", "MergeQueue")),
    ("merge-stale-pairs", "text/tokenizer/bpe.cc", "if (s.ranks[at] != rank) continue;", "if (s.next[at] < 0) continue;", ("text_tokenizer_test", "Bpe:SentencePiece:StreamDecoder:Tokenizer:WordCache")),
    ("whole-text-memory", "infer/engine.cc", "pass(model::Pass::plan(run));", "pass(plan_pieces(*model_, ops::CacheType::bf16, 1, 1, 0, layers::MlaForm::expanded));", ("infer_test", "AbsorbedCache:Cache:Engine:Session")),
    ("mixtral-one-expert", "model/config/specs.cc", " || find_model_type(model_type).always_normalises", "", ("model_config_test", "ConfigJson:MemoryPlan:Presets:Settings")),
    ("prediction-not-hashed", "model/config/specs.cc", "std::min(num_hash_layers, num_hidden_layers)", "num_hash_layers", ("model_config_test", "ConfigJson:MemoryPlan:Presets:Settings")),
    ("rope-parameters-beside", "model/config/config.cc", "if (settings.contains(kLast) && !scaled)", "if (settings.contains(kLast) || scaled)", ("model_config_test", "ConfigJson:MemoryPlan:Presets:Settings")),
    ("v32-layer-kinds", "model/config/types/deepseek_v32.cc", 'j["first_k_dense_replace"] = dense;', 'j["first_k_dense_replace"] = index - dense;', ("model_config_test", "ConfigJson:MemoryPlan:Presets:Settings")),
    ("attn-factor-alone", "model/config/rope_settings.cc", "times * follows", "times", ("model_config_test", "ConfigJson:MemoryPlan:Presets:Settings")),
    ("qwen-slides", "model/config/types/qwen.cc", "if (slides && reached)", "if (slides && !reached)", ("model_config_test", "ConfigJson:MemoryPlan:Presets:Settings")),
    ("head-norm-eps", "model/config/specs.cc", "qk_norm,\n          static_cast<float>(rms_norm_eps)", "qk_norm,\n          1e-6f", ("model_test", "Gradients")),
    ("linear-bias-shape", "checkpoint/tensor_map.cc", "r == Role::linear_bias ||", "", ("checkpoint_test", "SaveModel")),
    ("v4-always-normalises", "model/config/types/deepseek_v4.cc", 'j["norm_topk_prob"] = true;', 'j["norm_topk_prob"].is_null();', ("model_config_test", "ConfigJson:MemoryPlan:Presets:Settings")),
    ("v4-attention-factor", "model/config/types/deepseek_v4.cc", "!factor.is_null() && factor != 1.0", "factor.is_string()", ("model_config_test", "ConfigJson:MemoryPlan:Presets:Settings")),
# GGUF
    ("gguf-offset-base", "io/gguf_header.cc", "t.data = file_.data() + at_ + padding + offset;", "t.data = file_.data() + at_ + offset;", ("io_test", "Gguf")),
    ("gguf-overlap", "io/gguf_header.cc", "if (tensors[i - 1].data + tensors[i - 1].bytes > tensors[i].data)", "if (false)", ("io_test", "Gguf")),
    ("gguf-array-count", "io/gguf_header.cc", "if (l.left > left() / static_cast<uint64_t>(bytes))", "if (l.left * static_cast<uint64_t>(bytes) > left())", ("io_test", "Gguf")),
    ("gguf-nesting", "io/gguf_header.cc", "kMaxNesting = 8", "kMaxNesting = 1 << 20", ("io_test", "Gguf")),
    ("gguf-rotary-rows", "checkpoint/gguf_config.cc", "json llama_config(const GgufKeys& k, GgufDescription& d) {\n  d.interleaved = true;", "json llama_config(const GgufKeys& k, GgufDescription& d) {\n  d.interleaved = false;", ("infer_test", "GgufEngine:GgufModelCase")),
    ("gguf-rotary-back", "model/config/config.h", "at < half ? 2 * at : 2 * (at - half) + 1", "at", ("checkpoint_test", "GgufConfig")),
    ("gguf-latent-transposed", "ops/gemm/stored_matrix.cc", "= tile[c * out.rows + i];", "= tile[i * out.cols + c];", ("infer_test", "GgufEngine:GgufModelCase")),
    ("gguf-latent-heads", "checkpoint/gguf_files.cc", "add_rows(v_view, h * wide, wide);", "add_rows(v_view, 0 * h, wide);", ("infer_test", "GgufEngine:GgufModelCase")),
    ("gguf-expert", "checkpoint/gguf_files.cc", "std::max<int64_t>(0, place.expert) * place.rows", "0 * place.rows", ("infer_test", "GgufEngine:GgufModelCase")),
    ("gguf-gating", "checkpoint/gguf_config.cc", "return *gate == kSigmoidGate;", "return *gate == kSoftmaxGate;", ("checkpoint_test", "GgufConfig")),
    ("gguf-yarn", "checkpoint/gguf_rope.cc", "= *multiplier * 10;", "= *multiplier;", ("infer_test", "GgufEngine:GgufModelCase")),
    ("gguf-module-left-out", "checkpoint/gguf_files.cc", "  c.num_nextn_predict_layers = 0;\n", "", ("infer_test", "GgufEngine")),
    ("gguf-written-rows", "checkpoint/save_gguf.cc", "head + at / 2 + at % 2 * (config_.head_dim / 2)", "head + at", ("checkpoint_test", "SaveGguf")),
    ("gguf-written-keys", "checkpoint/save_gguf.cc", "out.f32(l)[n] = rows.f32(n)[l];", "out.f32(l)[n] = rows.f32(n)[0 * l];", ("checkpoint_test", "SaveGguf")),
    ("gguf-written-experts", "checkpoint/save_gguf.cc", "return list_[known->second].parts.push_back(i);", "return list_[known->second].parts.push_back(list_[known->second].parts[0]);", ("checkpoint_test", "SaveGguf")),
    ("gguf-written-too-large", "checkpoint/save_gguf.cc", "t.type == StoredType::f16 ? kLargestHalf : std", "std", ("checkpoint_test", "GgufSaving")),
    ("gguf-written-padding", "io/gguf_writer.cc", "offset += t.bytes() + padding_of(t.bytes());", "offset += t.bytes();", ("checkpoint_test", "SaveGguf")),
    ("gguf-written-fp4", "checkpoint/save_gguf.cc", "if (as_they_lie && o.matrices != StoredType::f32) keep_fp4();", "if (as_they_lie && false) keep_fp4();", ("checkpoint_test", "GgufV4")),
    ("gguf-written-fp4-factor", "ops/gemm/mxfp4.cc", "*out++ = t.scale[i];", "*out++ = t.scale[0];", ("checkpoint_test", "GgufV4")),
    ("gguf-written-fp4-rows", "checkpoint/save_gguf.cc", "ops::mxfp4_rows(v, from, n, out", "ops::mxfp4_rows(v, p.first + to, n, out", ("checkpoint_test", "SaveGgufFp4")),
    ("gguf-bytes", "infer/text_model.cc", "if (tokenizer_ && is_bytes(*tokenizer_)) tokenizer_ = nullptr;", "", ("infer_test", "TextModel")),
    ("gguf-written-table", "checkpoint/save_gguf.cc", "return StoredType::i32;", "return StoredType::f32;", ("checkpoint_test", "GgufV4")),
    ("gguf-written-modules", "checkpoint/gguf_metadata.cc", "? c.num_hidden_layers : c.blocks();", "? c.blocks() : c.blocks();", ("checkpoint_test", "GgufV4")),
    ("gguf-written-indexer", "checkpoint/gguf_metadata.cc", "  if (c.uses_indexer()) put_indexer();\n", "", ("checkpoint_test", "SaveGguf")),
    ("gguf-table-range", "checkpoint/tensor_map.cc", "expert < 0 || expert >= c.n_routed_experts", "expert < 0", ("checkpoint_test", "GgufV4")),
    ("gguf-gain", "checkpoint/gguf_rope.cc", "attn * ops::yarn_mscale(s[\"factor\"], 1)", "attn", ("checkpoint_test", "SaveGguf")),
    ("gguf-factors-fitted", "checkpoint/gguf_rope.cc", "std::llround(line.a / line.b)", "std::llround(line.a)", ("checkpoint_test", "GgufConfig")),
    ("gguf-written-ends", "text/tokenizer/gguf_vocabulary.cc", "if (t.eos()) add(*t.eos());", "if (t.bos()) add(*t.bos());", ("text_tokenizer_test", "GgufVocabulary")),
    ("gguf-written-splitting", "text/tokenizer/gguf_splitting.cc", "pre_tokenizers == plain_stages(s.rules.pre_tokenizer(), \"pretokenizers\")", "true", ("text_tokenizer_test", "GgufVocabulary")),
    ("panels-damaged", "checkpoint/panel_cache.cc", "!= sum) match = false;", "!= sum) match = true;", ("infer_test", "Panels:Streaming")),
    ("panels-sampled", "checkpoint/panel_cache.cc", "chunks : std::min(chunks, kSampledChunks)", "chunks : 0 * std::min(chunks, kSampledChunks)", ("infer_test", "Panels")),
    ("panels-header", "checkpoint/panel_cache.cc", "h.data_begin - kChecked) != h.checksum) return", "h.data_begin - kChecked) == 0) return", ("infer_test", "Panels")),
    ("panels-of-other-files", "checkpoint/panel_cache.cc", "key += \"file \" + identity_of(path) + \"\\n\";", "identity_of(path);", ("infer_test", "Panels")),
    ("panels-sample", "checkpoint/panel_cache.cc", "last * i / (kSamples - 1)", "0 * last * i / (kSamples - 1)", ("infer_test", "Panels")),
    ("panels-carried", "infer/measured_model.cc", "carried && options.weights.automatic() ? *carried : options.weights", "options.weights", ("infer_test", "Panels")),
    ("group-limit-above", "core/process.cc", "group.resize(parent);", "group.clear();", ("core_test", "Process")),
    ("pages-asked-for-once", "core/pages.cc", "at += kAskedAtOnce)", "at = end)", ("core_test", "Pages")),
    ("pages-around", "core/pages.cc", "MADV_RANDOM", "MADV_NORMAL", ("core_test", "Pages")),
    ("pages-of-scales", "ops/gemm/operand_pages.cc", "end = div_up(first + count, t.block_rows);", "end = (first + count) / t.block_rows;", ("ops_gemm_test", "OperandPages")),
    ("pages-turned", "ops/gemm/operand_pages.cc", "    if (part.turned) begin = 0, end = t.rows;\n", "", ("ops_gemm_test", "OperandPages")),
    ("pages-cut", "ops/gemm/operand_pages.cc", "reinterpret_cast<uintptr_t>(range.data()) % kPiece;", "0 * reinterpret_cast<uintptr_t>(range.data());", ("ops_gemm_test", "OperandPages")),
    ("stream-expert-rows", "layers/moe.cc", "rows.block(begin, end - begin)", "rows.block(0, end - begin)", ("layers_test", "Moe")),
    ("stream-expert-offsets", "layers/moe.cc", "offset -= begin;", "offset -= 0 * begin;", ("layers_test", "Moe")),
    ("stream-from-disk", "model/traffic.cc", "- kept_of_routed(memory)", "- 0 * kept_of_routed(memory)", ("infer_test", "Streaming")),
    ("stream-kept", "model/traffic.cc", "due[routed] -= bytes;", "due[routed] -= 0 * bytes;", ("infer_test", "Streaming")),
    ("pages-given-back", "core/pages.cc", "MADV_PAGEOUT", "MADV_NORMAL", ("core_test", "Pages")),
    ("stream-in-memory", "infer/engine.cc", "  if (options.stream)\n    throw Error(\"stream\",", "  if (false)\n    throw Error(\"stream\",", ("infer_test", "Streaming")),
    ("gguf-control-tokens", "text/tokenizer/gguf_tokens.h", "types[i] == kIsControl || types[i] == kIsUserDefined", "types[i] == kIsUserDefined", ("text_tokenizer_test", "GgufTokenizer")),
    ("tied-head-copied", "checkpoint/tensor_map.cc", "std::memcmp(head.data, embedding->data, head.bytes) == 0", "head.data", ("checkpoint_test", "Directory:TiedDirectory")),
    ("empty-tensors", "checkpoint/tensor_map.cc", "e->bytes == 0 || ", "", ("checkpoint_test", "Directory:TiedDirectory")),
    # Evaluation by tasks
    ("score-error", "eval/statistics.cc", "std::sqrt(squares / (n - 1) / n);", "std::sqrt(squares / n / n);", ("eval_test", "EvalStatistics")),
    ("score-pool", "eval/statistics.cc", "squares += (n - 1) * n *", "squares += n * n *", ("eval_test", "EvalStatistics")),
    ("mcnemar-one-side", "eval/statistics.cc", "return std::min(1.0, 2 * p);", "return std::min(1.0, p);", ("eval_test", "PairedDifference")),
    ("pairs-half-document", "eval/statistics.cc", "const double n = static_cast<double>(d.n) + 2,", "const double n = static_cast<double>(d.n) + 1,", ("eval_test", "PairedDifference")),
    ("bootstrap-one-resample", "eval/statistics.cc", "const Rng rng(seed, r);", "const Rng rng(seed, r / kResamples);", ("eval_test", "PairedDifference")),
    ("sandbox-end-claimed", "eval/sandbox/child.cc", "if (returned == l.token)", "if (!returned.empty())", ("eval_test", "SandboxWays")),
    ("sandbox-forks", "eval/sandbox/system_calls.cc", "{{0, CLONE_THREAD | new_namespaces, {CLONE_THREAD}}}", "{{0, new_namespaces, {0}}}", ("eval_test", "SandboxWays")),
    ("sandbox-owner-of-signals", "eval/sandbox/system_calls.cc", "F_GETPIPE_SZ}", "F_GETPIPE_SZ, F_SETOWN}", ("eval_test", "SandboxWays")),
    ("sandbox-datagrams", "eval/sandbox/system_calls.cc", "{1, 0xf, {SOCK_STREAM}}", "{1, 0xf, {SOCK_STREAM, SOCK_DGRAM}}", ("eval_test", "SandboxWays")),
    ("sandbox-files-open", "eval/sandbox/confinement.cc", "restrict_files(c_.means.namespaces ? kFolder : folder) && ", "", ("eval_test", "SandboxWays")),
    ("sandbox-old-root", "eval/sandbox/confinement.cc", "ok(\"umount of the old root\", umount2(kOld, MNT_DETACH)) && ok(\"rmdir /old\", rmdir(kOld)) &&", "", ("eval_test", "SandboxWays")),
    ("compare-other-prompts", "eval/compare_results.cc", "if (it->second.prompt != sample.prompt) {", "if (it->second.prompt != sample.prompt && !common.empty()) {", ("eval_test", "CompareResults")),
    ("compare-lower", "eval/compare_results.cc", "lower_is_better(metric) ? less : more;", "lower_is_better(metric) ? more : more;", ("eval_test", "CompareResults")),
    ("compare-shots", "eval/compare_results.cc", "{\"version\", \"num_fewshot\"}", "{\"version\"}", ("eval_test", "CompareResults")),
    ("page-script-ends", "report/page.cc", "out += \"\\\\u003c\";", "out += c;", ("report_test", "EvaluationPage")),
    ("page-samples-first", "report/evaluation_page.cc", "list[i * list.size() / count]", "list[i]", ("report_test", "EvaluationPage")),
    ("page-error-of-filter", "report/evaluation_page.cc", "metric.substr(0, comma) + \"_stderr\" + metric.substr(comma), ", "", ("report_test", "EvaluationPage")),
    # Runs on paper
    ("plan-ring", "lab/plan/plan.cc", "p.gradient_bytes = 2.0 * others", "p.gradient_bytes = 1.0 * others", ("lab_plan_test", "Plan")),
    ("plan-busiest-machine", "lab/plan/plan.cc", "static_cast<double>(divided_up(E, machines)) / static_cast<double>(E)", "static_cast<double>(E / machines) / static_cast<double>(E)", ("lab_plan_test", "Plan")),
    ("plan-fewest", "lab/plan/plan.cc", "      low = middle + 1;", "      low = middle + 2;", ("lab_plan_test", "Plan")),
    # Files of the user
    ("file-kind", "io/user_files.cc", "if (!S_ISREG(about.st_mode))", "if (S_ISDIR(about.st_mode))", ("io_test", "UserFiles:Streams:Outputs:MappedFiles")),
    ("file-limit", "io/user_files.cc", "if (static_cast<size_t>(about.st_size) > max_bytes)", "if (false)", ("io_test", "UserFiles:Streams:Outputs:MappedFiles")),
    ("link-replaced", "io/atomic_file.cc", "replace_file(follow_links(path), parts,", "replace_file(path, parts,", ("io_test", "UserFiles:Streams:Outputs:MappedFiles")),
    ("output-mode", "io/atomic_file.cc", "exists ? there.st_mode & 07777 : 0644", "0644", ("io_test", "UserFiles:Streams:Outputs:MappedFiles")),
    ("output-umask", "io/atomic_file.cc", "if (exists) fchmod(fd, mode);", "", ("io_test", "Outputs")),
    ("torn-line-joined", "io/atomic_file.cc", "last == '\\n' ? ended :", "last != 0 ? ended :", ("io_test", "Outputs")),
    ("input-overwritten", "io/user_files.cc", "x.st_dev == y.st_dev && x.st_ino == y.st_ino;", "x.st_dev == y.st_dev && x.st_ino == y.st_ino && a == b;", ("io_test", "UserFiles:Streams:Outputs:MappedFiles")),
    ("mapped-change-forgotten", "io/mapped_file.cc", "if (mapping_->changed()) changed_before()", "if (false) changed_before()", ("io_test", "UserFiles:Streams:Outputs:MappedFiles")),
    ("mapped-end", "io/mapped_file.cc", "at >= begin + m->size", "at > begin + m->size", ("io_test", "UserFiles:Streams:Outputs:MappedFiles")),
    ("value-not-cut", "core/error.cc", "append_cut(out, text.substr(open + 1, close - open - 1), kLongestValue);", "out += text.substr(open + 1, close - open - 1);", ("core_test", "Bf16:Arena:Nearest:Error:Exec:View")),
    ("mark-kept", "io/user_files.h", "? kByteOrderMark.size() : 0", "? 0 : 0", ("data_test", "Documents")),
    ("folder-of-inputs", "io/user_files.cc", "if (same_file(out, input) || holds_it(input))", "if (same_file(out, input))", ("io_test", "Outputs")),
    ("read-stream-part", "kernels/rows/read_stream.isa.cc", "((a + b) + (c + d)) + ((e + f) + (g + h))", "((a + b) + (c + d)) + ((e + f) + (g + g))", ("ops_rows_test", "ReadBandwidth")),
    ("inventory-router", "model/config/inventory.cc", "group == \"routed_experts\" || group == \"router\"", "group == \"routed_experts\"", ("model_config_test", "Inventory")),
    ("linear-parts", "layers/visit.h", "row += part.rows;", "row += 0 * part.rows;", ("layers_test", "Visit")),
    ("grouped-rows", "layers/linear.cc", "static_cast<int64_t>(g) * of[g].out(), of[g].out());", "0 * static_cast<int64_t>(g), of[g].out());", ("layers_test", "Visit")),
    ("adapter-rows", "model/lora.cc", "row += part.rows;", "row += 0 * part.rows;", ("train_test", "Trainable:Lora:Adapter:Init")),
    ("rope-factor-guessed", "model/config/rope_settings.cc", "if (std::isnan(s.factor))", "if (std::isnan(s.factor) && (s.factor = 1) != 1)", ("model_config_test", "ConfigJson:MemoryPlan:Presets:Settings")),
    ("range-open-end", "model/config/range.h", "(ends == above ? v > low : v >= low)", "(v >= low)", ("model_config_test", "ConfigJson:MemoryPlan:Presets:Settings")),
    ("range-unchecked", "model/config/validate.cc", "for_each_field(std::as_const(c), CheckRange{});", "", ("model_config_test", "ConfigJson:MemoryPlan:Presets:Settings")),
    ("words-swapped", "model/config/names.h", "{\"lite\", ops::ResForm::lite}, {\"kron\", ops::ResForm::kron}", "{\"lite\", ops::ResForm::kron}, {\"kron\", ops::ResForm::lite}", ("model_config_test", "ConfigJson:MemoryPlan:Presets:Settings")),
    ("tokenizer-growth", "text/tokenizer/growth.h", "kGrowth * input_bytes + floor", "floor", ("text_tokenizer_test", "Growth")),
]


def run(*command, **options):
    return subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", **options)


def make_copy(to):
    """The tracked and new files of the tree; what did not change keeps its time, so that little is built again."""
    names = run("git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard").stdout.split("\n")
    wanted = {n for n in names if n and (ROOT / n).is_file()}
    for name in wanted:
        target = to / name
        if not target.exists() or target.read_bytes() != (ROOT / name).read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target)
            shutil.copymode(ROOT / name, target)
    for extra in [p for p in to.rglob("*") if p.is_file() and "build" not in p.relative_to(to).parts[:1]]:
        if str(extra.relative_to(to)) not in wanted:
            extra.unlink()


def build(copy, targets):
    return run("cmake", "--build", copy / "build" / "release", "--target", *targets)


def pattern(text):
    """Finds the text however the formatter broke its lines."""
    return re.compile(r"\s*".join(re.escape(word) for word in re.findall(r"\w+|[^\w\s]", text)))


# A broken line may leave something unused: a warning of that kind is no test.
UNUSED = "".join(f'#pragma GCC diagnostic ignored "-W{kind}"\n' for kind in (
    "unused-variable", "unused-parameter", "unused-but-set-variable", "unused-but-set-parameter", "unused-function", "unused-value",
    "conversion", "float-conversion", "sign-compare", "tautological-compare", "bool-compare", "type-limits"))


def stale(sabotage):
    """Why the sabotage can no longer be tried; '' when it can."""
    _, file, old, _, (program, suites) = sabotage
    path = ROOT / "src" / file
    if not path.is_file():
        return f"there is no src/{file}"
    count = len(pattern(old).findall(path.read_text()))
    if count != 1:
        return f"the text stands {count} times in src/{file}: {old}"
    folders = [p for p in (ROOT / "tests").rglob("*") if p.is_dir() and program_of(p) == program]
    if not folders:
        return f"no folder of tests/ makes {program}"
    tests = "".join(p.read_text() for p in folders[0].glob("*_test.cc"))
    gone = [s for s in suites.split(":") if not re.search(rf"^TEST(_F|_P)?\({s},", tests, re.MULTILINE)]
    return f"{program} has no suite {', '.join(gone)}" if gone else ""


def program_of(folder):
    """As tests/CMakeLists.txt names it."""
    return "_".join(folder.relative_to(ROOT / "tests").parts) + "_test"


def test_command(copy, test):
    program, suites = test
    chosen = ":".join(f"{s}.*:*/{s}.*" for s in suites.split(":"))
    return [copy / "build" / "release" / "bin" / program, f"--gtest_filter={chosen}"]


def check(copy, sabotage):
    """What happened: '' when the test noticed."""
    _, file, old, new, test = sabotage
    path = copy / "src" / file
    text = path.read_text()
    place = pattern(old).search(text)
    try:
        path.write_text(UNUSED + text[:place.start()] + new + text[place.end():])
        built = build(copy, [test[0]])
        if built.returncode:
            return "does not build:\n" + built.stdout[-1500:]
        tested = run(*test_command(copy, test), timeout=600)
        return "" if tested.returncode else "UNNOTICED"
    except subprocess.TimeoutExpired:
        return ""  # a test that no longer ends is noticed as well
    finally:
        path.write_text(text)


def prepare(copy, tests):
    """Builds the programs; what is wrong, or '' when every test passes on the untouched source."""
    configured = run("cmake", "--preset", "release", "-DBIRKHOFF_TESTS=ON", cwd=copy)
    if configured.returncode:
        return configured.stdout[-3000:]
    built = build(copy, sorted({program for program, _ in tests}))
    if built.returncode:
        return built.stdout[-3000:]
    for test in sorted(tests):
        if run(*test_command(copy, test)).returncode:
            return f"{test[0]} ({test[1]}) fails on the untouched source"
    return ""


def tenth(sabotages):
    """Every tenth, beginning with another one after every commit."""
    head = run("git", "-C", ROOT, "rev-parse", "HEAD").stdout
    return sabotages[zlib.crc32(head.encode()) % 10::10]


def select(parser, options):
    if not options.only:
        return tenth(SABOTAGES) if options.tenth else SABOTAGES
    names = options.only.split(",")
    unknown = set(names) - {s[0] for s in SABOTAGES}
    if unknown:
        parser.error(f"--only names what is not in the list: {', '.join(sorted(unknown))}; see --list")
    return [s for s in SABOTAGES if s[0] in names]


def try_all(copy, chosen, seconds):
    """The number of sabotages that no test noticed, of those begun within so many seconds."""
    unnoticed = tried = 0
    first = time.monotonic()
    for sabotage in chosen:
        start = time.monotonic()
        if start - first > seconds:
            break
        tried += 1
        problem = check(copy, sabotage)
        unnoticed += bool(problem)
        test = " ".join(sabotage[4])
        print(f"{sabotage[0]:26} {problem or 'noticed by ' + test}  ({time.monotonic() - start:.0f} s)", flush=True)
    print(f"{tried - unnoticed} of {tried} sabotages noticed" + (f", {len(chosen) - tried} left out" if tried < len(chosen) else ""))
    return unnoticed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="print the sabotages and stop")
    parser.add_argument("--stale", action="store_true", help="only look whether every text and every test is still there")
    parser.add_argument("--only", help="names, comma-separated")
    parser.add_argument("--tenth", action="store_true", help="every tenth, others after every commit")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin none after so many")
    parser.add_argument("--here", action="store_true", help="break this tree instead of a copy; for a clone that nobody else uses")
    parser.add_argument("--dir", type=pathlib.Path, default=ROOT / "build" / "sabotage")
    options = parser.parse_args()
    chosen = select(parser, options)
    if options.list:
        for name, file, old, new, test in chosen:
            print(f"{name:26} src/{file}: {old.strip()}  ->  {new.strip()}   ({' '.join(test)})")
        return 0
    gone = [(s[0], why) for s in chosen if (why := stale(s))]
    for name, why in gone:
        print(f"tools/sabotage.py: {name}: {why}", file=sys.stderr)
    if gone or options.stale:
        return 1 if gone else 0
    copy = ROOT if options.here else options.dir.resolve()
    if not options.here:
        make_copy(copy)
    wrong = prepare(copy, {s[4] for s in chosen})
    if wrong:
        print(wrong, file=sys.stderr)
        return 1
    return 1 if try_all(copy, chosen, 60 * options.minutes) else 0


if __name__ == "__main__":
    sys.exit(main())
