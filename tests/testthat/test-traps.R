# Where Keras' own Adadelta goes wrong, from tests/traps: each trap is a Python function of an
# optimizer class, which tests/python runs on Keras' class. Here the optimizers come from
# optimizer_adadelta() instead, so that every argument passes through R.

local_traps <- function(frame = parent.frame()) {
  folder <- test_path("..", "traps")
  skip_if_not(dir.exists(folder), "the traps are not part of the R package")
  places <- normalizePath(c(test_path(".."), test_path("..", "python")))
  path <- reticulate::import("sys", convert = FALSE)$path
  for (place in places) path$append(place)
  withr::defer(for (place in places) path$remove(place), envir = frame)
  reticulate::import("traps")
}

help_page <- function() {
  page <- tools::Rd_db("adadelta")[["optimizer_adadelta.Rd"]]
  text <- utils::capture.output(tools::Rd2txt(page))
  gsub("[[:space:]]+", " ", paste(text, collapse = " "))
}

subjects <- c(
  "accumulation", "arguments", "averages", "checks", "clipping", "learning_rate", "nonfinite",
  "precision", "saving", "sparse", "state"
)

for (subject in subjects) {
  test_that(paste("optimizers made in R fall into no trap of", subject), {
    skip_without_keras()
    optimizer_adadelta()
    traps <- local_traps()
    maker <- reticulate::import("traps.from_r")$Maker(
      function(...) optimizer_adadelta(...), help_page()
    )
    entries <- Filter(function(entry) entry$subject == subject, traps$TRAPS)
    expect_gt(length(entries), 0)
    for (entry in entries) {
      if (!keras$config$backend() %in% unlist(entry$backends)) next
      outcome <- traps$run(entry, maker)
      label <- paste0("trap ", entry$number, ", ", entry$words, ": ", outcome$text)
      expect_true(outcome$holds, info = label)
    }
  })
}

test_that("every subject that has traps is among them", {
  skip_without_keras()
  optimizer_adadelta()
  expect_setequal(vapply(local_traps()$TRAPS, function(entry) entry$subject, ""), subjects)
})

test_that("Keras' own optimizer falls into a trap when R leads it there", {
  skip_without_keras()
  optimizer_adadelta()
  traps <- local_traps()
  made <- 0
  maker <- reticulate::import("traps.from_r")$Maker(function(...) {
    made <<- made + 1
    keras$optimizers$Adadelta(...)
  }, "")
  words <- "use_ema: a fit() without an epoch sets every weight to 0"
  entry <- Filter(function(entry) entry$words == words, traps$TRAPS)[[1]]
  expect_false(traps$run(entry, maker)$holds)
  expect_identical(made, 1)
})
