# Runs tests/testthat on the installed package, prints failures in full and
# writes one line of JSON per test: testthat.R REPORT
report <- commandArgs(TRUE)[[1]]

library(testthat)
library(adadelta)

results <- test_dir(
  "tests/testthat",
  # Prints the name of each file as it starts, and every failure in full at the end.
  reporter = SummaryReporter$new(show_praise = FALSE, max_reports = Inf),
  package = "adadelta",
  load_package = "installed",
  stop_on_failure = FALSE
)

outcome <- function(test) {
  kinds <- vapply(test$results, function(result) class(result)[[1]], "")
  if (any(kinds %in% c("expectation_failure", "expectation_error"))) {
    return(list(outcome = "failed", reason = ""))
  }
  skips <- test$results[kinds == "expectation_skip"]
  if (length(skips) > 0) {
    reason <- sub("^Reason: ", "", conditionMessage(skips[[1]]))
    return(list(outcome = "skipped", reason = reason))
  }
  list(outcome = "passed", reason = "")
}

lines <- vapply(results, function(test) {
  what <- c(list(name = paste0(test$file, ": ", test$test)), outcome(test))
  as.character(jsonlite::toJSON(what, auto_unbox = TRUE))
}, "")
writeLines(enc2utf8(lines), report, useBytes = TRUE)
