# The time that R adds: to making an optimizer, and to an epoch of fit() from R beside one from
# Python, in one process. Run by bench/run.py with the package installed.

suppressPackageStartupMessages(library(adadelta))
keras <- reticulate::import("keras")
numpy <- reticulate::import("numpy", convert = FALSE)

seconds <- function(code) system.time(code)[["elapsed"]]
line <- function(what, times, peer = NULL) {
  middle <- stats::median(times)
  spread <- diff(stats::quantile(times, c(0.25, 0.75))) / middle
  ratio <- if (is.null(peer)) "" else sprintf("%.2f", middle / stats::median(peer))
  milliseconds <- sprintf(if (middle < 0.01) "%.3f" else "%.1f", 1000 * middle)
  cells <- c(what, milliseconds, sprintf("%.0f %%", 100 * spread), "", ratio)
  cat("|", paste(cells, collapse = " | "), "|\n")
}

cat("\n### From R\n\n| what | ms | spread | x limit | x peer |\n|---|---|---|---|---|\n")
invisible(optimizer_adadelta())
# So many at once, because the clock counts milliseconds.
making <- replicate(20, seconds(for (i in 1:100) optimizer_adadelta(1)) / 100)
line("optimizer_adadelta(), after the first", making)

scale <- as.numeric(Sys.getenv("ADADELTA_BENCH_SCALE", "1")) # see measure.py
count <- as.integer(max(1, round(10000 * scale)))
images <- numpy$random$default_rng(0L)$random(reticulate::tuple(count, 784L), "float32")
labels <- numpy$random$default_rng(0L)$integers(0L, 10L, count)
network <- function(optimizer) {
  layers <- keras$layers
  network <- keras$Sequential(list(
    layers$Input(list(784L)), layers$Dense(2000L, activation = "relu"),
    layers$Dense(2000L, activation = "relu"), layers$Dense(10L)
  ))
  network$compile(optimizer, keras$losses$SparseCategoricalCrossentropy(from_logits = TRUE))
  network
}
reticulate::py_run_string("
import time
def epoch(network, images, labels):
    start = time.perf_counter()
    network.fit(images, labels, batch_size=100, verbose=0)
    return time.perf_counter() - start
")
from_r <- network(optimizer_adadelta(1))
from_python <- network(optimizer_adadelta(1))
python_epoch <- reticulate::py$epoch
r_epoch <- function() {
  seconds(from_r$fit(images, labels, batch_size = 100L, verbose = 0L))
}
invisible(c(r_epoch(), python_epoch(from_python, images, labels)))
times <- replicate(6, c(r = r_epoch(), python = python_epoch(from_python, images, labels)))
line("an epoch of fit() from R; the peer is Python", times["r", ], times["python", ])
line("an epoch of fit() from Python", times["python", ])
