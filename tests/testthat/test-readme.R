test_that("the R examples of README.md run", {
  skip_without_keras()
  path <- test_path("..", "..", "README.md")
  skip_if_not(file.exists(path), "README.md is not beside the tests, as under R CMD check")
  lines <- readLines(path)
  starts <- grep("^```r$", lines)
  expect_gt(length(starts), 0)
  for (start in starts) {
    end <- start + which(lines[-seq_len(start)] == "```")[[1]]
    code <- parse(text = lines[(start + 1):(end - 1)])
    place <- new.env(parent = globalenv())
    for (expression in code) expect_error(result <- eval(expression, place), NA)
    expect_s3_class(result, "adadelta.Adadelta")
  }
})
