#!/usr/bin/env perl

# npm's clients: ioredis, and redis with RESP2 and RESP3.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;
use Redis;

my $node = "$FindBin::Bin/../lib/node";
plan(skip_all => 'Node 20 or newer is not installed') if qx{node -p 'parseInt(process.versions.node) >= 20' 2>&1} !~ /true/;
plan(skip_all => 'ioredis and redis are not installed (mk/deps test)')
	if grep { !-d "$node/node_modules/$_" } qw(ioredis redis);

my $redis = Redis::server();
my $proxy = Redis::proxy($redis);
my @said = split /\n/, qx{node $node/redis.mjs @{[ $proxy->redis_port ]} 50 2>&1};
is scalar @said, 3, 'three kinds of clients' or diag "@said";
for (@said) {
	my $r = json_decode($_);
	is_deeply $r->{failures}, [], "50 x $r->{client}";
}
done_testing;
