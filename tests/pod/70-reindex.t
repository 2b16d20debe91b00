#!/usr/bin/env perl

# The product's promise, small: three kinds of client index the same documents at the same time, then once
# more after a restart with a few changed, through two instances; every text is paid for once. The large one
# is tests/bench/reindex/run.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use EG::Pod;
use EG::Reindex;

my $r = EG::Reindex::run(EG::Pod->new(gatewayds => 2), chunks => 2100, dimensions => 24);

is_deeply $r->{wrong}, [], 'every request answered, every vector right and in its place';
is $r->{vectors}, 2 * 3 * 2100, 'all of them';
is $r->{bought}, $r->{distinct}, 'each text bought once';
is $r->{paid_tokens}, $r->{distinct_tokens}, 'each text paid for once';
cmp_ok $r->{whole_tokens}, '>', 3 * $r->{paid_tokens}, 'a cache of whole requests pays several times as much';
is $r->{paid_by_metrics}, $r->{paid_tokens}, 'the metrics say what was paid';
is $r->{answered_tokens}, $r->{usage}, 'and what answers said they used';
is $r->{saved_tokens}, $r->{usage} - $r->{paid_tokens}, 'and what was saved, to the token';
diag explain { map { $_ => $r->{$_} } grep { !ref $r->{$_} } keys %$r } if !Test::More->builder->is_passing;

done_testing;
