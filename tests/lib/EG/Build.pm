package EG::Build;

# What kind of build is under test (EG_BIN), and what that means for measuring and waiting.

use strict;
use warnings;
use Exporter 'import';

our @EXPORT_OK = qw(instrumented $TIMEOUT);

# A sanitizer keeps freed memory and counting lines costs time: such a build's figures are not the product's.
sub instrumented { return ($ENV{EG_BIN} // '') =~ m{/build/(?:sanitize|thread|cover)/} }

# The deadline of all waiting, in seconds: a correct program never needs it, a stuck one is found by it. EG_TIMEOUT
# overrides it (valgrind).
our $TIMEOUT = $ENV{EG_TIMEOUT} // (instrumented() ? 120 : 30);

1;
