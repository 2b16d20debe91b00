#!/usr/bin/env perl

# With real gatewayds: those of the pod by their sockets, one of "another pod" over HTTP.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;

my $token = 'token-that-gatewayd-wants';
sub gatewayd
{
	my ($dir, $i, $n) = @_;
	-d test_path($dir) or mkdir test_path($dir) or die $!;
	return process("gatewayd-$dir.$i", [ eg_bin('gatewayd') ], http => 1, rpc => "$dir/gatewayd.$i.sock", env => { PROVIDER => 'mock',
		STORE => 'none', PURGE_TOKEN => $token, GATEWAYD_INSTANCE => $i, GATEWAYD_INSTANCES => $n, RUN_DIR => test_path($dir) });
}
my @own = map { gatewayd('own', $_, 2) } 0, 1;
my $other = gatewayd('other', 0, 1);
my $d = daemon('broadcasterd', http => 1, rpc => 'own/broadcasterd.sock', env => { RUN_DIR => test_path('own'),
	BROADCASTERD_TARGETS => $other->address, PURGE_TOKEN => $token, BROADCASTERD_CONNECT_TIMEOUT => '300ms' });

sub ask { my ($g, $text, @headers) = @_; return http('POST', $g->url . '/v1/embeddings', [ 'Content-Type' => 'application/json', @headers ],
	json_encode({ model => 'text-embedding-3-small', dimensions => 4, input => $text }))->{headers}{'x-cache'} }
sub purge
{
	my (@headers) = @_;
	my $r = http('PURGE', $d->url . '/', [@headers]);
	$r->{json} = json_decode($r->{body});
	return $r;
}
sub pending { return http('GET', $d->url . '/metrics')->{body} =~ /^broadcaster_redeliveries_pending (\d+)$/m ? $1 : die }

subtest 'all of them' => sub {
	ask($_, 'red', 'Surrogate-Key' => 'red'), ask($_, 'plain') for @own, $other;
	is ask($_, 'red'), 'HIT', 'warm' for @own, $other;
	my $r = purge('Surrogate-Key' => 'red');
	is $r->{status}, 200, 'purged' or diag $r->{body};
	is_deeply [ map { $_->{pod} } @{ $r->{json}{results} } ], [ $other->address, 'gatewayd.0', 'gatewayd.1' ], 'targets';
	cmp_ok $r->{headers}{'x-purged'}, '>=', 3, 'objects';
	is ask($_, 'plain'), 'HIT', 'what has not the tag stays' for @own, $other;
	is ask($_, 'red'), 'MISS', 'what has is gone' for $own[0], $other;
};

subtest 'one that hangs' => sub {
	$own[1]->signal('STOP');
	my $r = purge('X-Purge-All' => 'true');
	is $r->{status}, 502, 'reported';
	my %ok = map { $_->{pod} => $_->{success} } @{ $r->{json}{results} };
	my ($sibling) = grep { $_->{pod} eq 'gatewayd.0' } @{ $r->{json}{results} };
	like $sibling->{error}, qr/gatewayd\.1: no answer in time/, 'and named by its sibling, which could not purge the whole pod';
	ok $ok{ $other->address }, 'the other pod has purged';
	ok !$ok{'gatewayd.1'}, 'it has not';
	is ask($own[0], 'plain'), 'MISS', 'its sibling has, though it could not purge the whole pod';
	ask($own[0], 'plain');
	cmp_ok pending(), '>=', 1, 'pending';
	$own[1]->signal('CONT');
	wait_for { pending() == 0 } 'delivery';
	pass 'delivered';
};

subtest 'one that dies' => sub {
	$own[1]->signal('STOP');
	purge('X-Purge-All' => 'true');
	cmp_ok pending(), '>=', 1, 'pending';
	$own[1]->kill9;
	$own[1]->start; # the socket stays, as under the supervisor
	wait_for { pending() == 0 } 'delivery, or its end';
	pass 'over';
	$own[1]->stop;
	unlink test_path('own/gatewayd.1.sock');
	is purge('X-Purge-All' => 'true')->{json}{total}, 2, 'without its socket it is no target';
};

subtest 'another token' => sub {
	$d->restart(env => { %{ $d->{env} }, PURGE_TOKEN => 'another' });
	my $r = purge('X-Purge-All' => 'true');
	is $r->{json}{failed}, 2, 'refused by all';
	like $_->{error}, qr/^403 Forbidden/, 'says so' for @{ $r->{json}{results} };
	is pending(), 2, 'told again, later';
	$d->restart(env => { %{ $d->{env} }, PURGE_TOKEN => $token });
	wait_for { pending() == 0 } 'delivery with the right token';
	pass 'delivered';
};

$_->stop for @own, $other, $d;
unlike $_->log, qr/$token|token":"another/, 'no token in the log of ' . $_->name for @own, $other, $d;

done_testing;
