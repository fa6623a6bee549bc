test_that("vignettes/choosing.Rmd begins with an optimizer whose rate falls from 1 to 0", {
  skip_without_keras()
  path <- test_path("..", "..", "vignettes", "choosing.Rmd")
  skip_if_not(file.exists(path), "vignettes are not beside the tests, as under R CMD check")
  lines <- readLines(path)
  start <- grep("^```\\{r begin", lines)
  end <- start + which(lines[-seq_len(start)] == "```")[[1]]
  place <- new.env(parent = globalenv())
  eval(parse(text = lines[(start + 1):(end - 1)]), place)
  rate <- function(step) as.numeric(place$keras$ops$convert_to_numpy(place$falling(step)))
  expect_s3_class(place$optimizer, "adadelta.Adadelta")
  expect_equal(c(rate(0L), rate(940L)), c(1, 0))
})
