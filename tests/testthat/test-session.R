test_that("what is read of an object of an earlier session is an error with advice", {
  skip_without_keras()
  gone <- of_earlier_session(optimizer_adadelta(1))
  error <- expect_error(gone$learning_rate, class = "adadelta_error_state")
  expect_identical(conditionCall(error), quote(gone$learning_rate))
  expect_match(conditionMessage(error), "save_optimizer_state()", fixed = TRUE)
  expect_lte(nchar(conditionMessage(error)), 200)
  expect_earlier_session(gone$build(list(1)))
  expect_earlier_session(gone[["rho"]])
  monitor <- of_earlier_session(adadelta_monitor())
  expect_match(conditionMessage(error_of(monitor$records)), "as.data.frame()", fixed = TRUE)
  # Printing never fails.
  expect_output(print(gone), "of an earlier session")
  expect_output(print(monitor), "of an earlier session")
})

test_that("attributes of an optimizer of this session are as Python has them", {
  skip_without_keras()
  optimizer <- optimizer_adadelta(1)
  expect_identical(optimizer$rho, 0.95)
  expect_identical(optimizer[["rho"]], 0.95)
  name <- "rho"
  expect_identical(optimizer[[name]], 0.95)
})

test_that("a process that was forked from one with Keras is warned, once and at once", {
  testthat::skip_on_os("windows")
  skip_without_keras()
  lines <- run_in_child("
    invisible(optimizer_adadelta())
    forked <- function(code) {
      job <- parallel::mcparallel(code, silent = FALSE)
      answer <- parallel::mccollect(job, wait = FALSE, timeout = 60)
      if (is.null(answer)) tools::pskill(job$pid, tools::SIGKILL)
      answer[[1]]
    }
    # Nothing here makes an array, for which a forked process can wait.
    print(forked({
      first <- tryCatch(optimizer_adadelta(rho = 2), warning = class)
      second <- tryCatch(optimizer_adadelta(rho = 2), error = class)
      c(first[[1]], second[[1]])
    }))
    print(forked(try(optimizer_adadelta(rho = 2), silent = TRUE)))
  ")
  text <- paste(lines, collapse = "\n")
  expect_match(text, "\"adadelta_warning_fork\" +\"adadelta_error_argument\"")
  expect_match(text, "Warning in optimizer_adadelta\\(rho = 2\\) : *\n? *this process was forked")
})

test_that("a process in which Keras was not loaded before the fork is not warned", {
  testthat::skip_on_os("windows")
  skip_without_keras()
  lines <- run_in_child("
    job <- parallel::mcparallel(tryCatch(class(optimizer_adadelta())[[1]], warning = class))
    print(parallel::mccollect(job)[[1]])
  ")
  expect_match(paste(lines, collapse = "\n"), "\"adadelta.Adadelta\"", fixed = TRUE)
})
