test_that("the conventions are a data frame", {
  skip_without_keras()
  table <- adadelta_conventions()
  expect_s3_class(table, "data.frame")
  expect_true(all(c("keras", "torch", "optax", "brainpy", "tf1", "paper") %in% table$framework))
  torch <- table[table$framework == "torch", ]
  expect_identical(torch$rho, 0.9)
  expect_identical(torch$epsilon_name, "eps")
  expect_identical(torch$weight_decay_mode, "coupled")
  keras <- table[table$framework == "keras", ]
  defaults <- formals(optimizer_adadelta)
  for (name in c("learning_rate", "rho", "epsilon")) {
    expect_identical(keras[[name]], defaults[[name]])
  }
  expect_true(is.na(keras$weight_decay) && is.na(table$epsilon[table$framework == "tf1"]))
})

test_that("arguments of one framework become those of another", {
  skip_without_keras()
  translated <- adadelta_translate("torch", "keras", lr = 0.5, weight_decay = 0.01)
  expect_identical(translated, list(
    learning_rate = 0.5, rho = 0.9, epsilon = 1e-6, weight_decay = 0.01,
    decoupled_weight_decay = FALSE
  ))
  config <- do.call(optimizer_adadelta, translated)$get_config()
  expect_identical(config[names(translated)], translated)
  expect_length(adadelta_translate("torch", "torch"), 0)
  expect_identical(adadelta_translate("keras", "brainpy", weight_decay = NULL)$lr, 0.001)
})

test_that("what can't be translated is an error that says why", {
  skip_without_keras()
  refused <- function(code, message) {
    error <- error_of(code)
    expect_s3_class(error, c("adadelta_error_argument", "adadelta_error"))
    expect_match(conditionMessage(error), message, fixed = TRUE)
    expect_identical(conditionCall(error)[[1]], quote(adadelta_translate))
  }
  refused(adadelta_translate("keras", "torch", weight_decay = 0.1),
    "`weight_decay` of keras has no equal in torch: there the decay is added")
  refused(adadelta_translate("keras", "torch", weight_decay = 0.1),
    "adadelta.torch.Adadelta takes `decoupled_weight_decay=True`")
  refused(adadelta_translate("nowhere", "torch"), "`from` must be one of \"keras\"")
  refused(adadelta_translate("torch", NA), "`to` must be one of")
  refused(adadelta_translate("torch", "keras", lr = function() 1), "at least 0; received function")
  refused(adadelta_translate("torch", "keras", lr = NA), "`lr` must be a finite number")
  refused(adadelta_translate("torch", "keras", lr = c(1, 2)), "received c(1, 2)")
  refused(adadelta_translate("torch", "keras", learning_rate = 1), "did you mean")
  refused(adadelta_translate("torch", "keras", 1), "arguments in `...` must be named")
  refused(do.call(adadelta_translate, list("torch", "x")), "`to` must be")
})

test_that("they need Python alone, without NumPy", {
  skip_without_keras()
  lines <- run_in_child(c(
    "cat(nrow(adadelta_conventions()) > 3, adadelta_translate('keras', 'torch', rho = 0.5)$rho)",
    "cat('', reticulate::py_module_available('numpy'))"
  ), RETICULATE_PYTHON = local_python())
  expect_identical(lines, "TRUE 0.5 FALSE")
})
