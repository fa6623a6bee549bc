# Fails on any word in the package's texts that is neither in a dictionary nor in inst/WORDLIST.
unknown <- spelling::spell_check_package()
print(unknown)
quit(status = as.integer(nrow(unknown) > 0))
