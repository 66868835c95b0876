// What an indexer learns from (models.md F.2): KL(p || softmax I) of every token, p the probabilities of the attention
// it serves.
#pragma once

namespace birkhoff::layers {

// The indexer's KL in backward: scale multiplies its gradient (1 / tokens of the step, times the coefficient; 0: the
// indexer does not learn), sum takes the loss.
struct IndexerLoss {
  float scale = 0;
  double sum = 0;
};

}  // namespace birkhoff::layers
