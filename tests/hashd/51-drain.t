#!/usr/bin/env perl

# SIGTERM: lameduck, then everything under way is answered, then it leaves.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;

my $gatewayd = fake_gatewayd(0);

sub start
{
	my (%env) = @_;
	my $hashd = daemon('hashd', http => 1, env => \%env);
	wait_for { http('GET', $hashd->url . '/x')->{status} == 200 } 'gatewayd to be up';
	return $hashd;
}

subtest 'requests under way are answered' => sub {
	my $hashd = start();
	my $idle = EG::HTTP->new($hashd->url);
	is $idle->request('GET', '/x')->{status}, 200, 'a connection that stays open';
	$gatewayd->mode(hold => JSON::PP::true);
	my @c = map { EG::HTTP->new($hashd->url) } 1 .. 20;
	$c[ $_ - 1 ]->send(EG::HTTP::format_request('POST', '/v1/embeddings', [], "drain $_")) for 1 .. 20;
	my $rpc = $hashd->rpc;
	my $id = $rpc->start('request', [ 'POST', '/v1/embeddings', [], mp_bin('local') ]);
	$gatewayd->wait(held => 21);
	$hashd->signal('TERM');
	ok $idle->eof, 'idle connections are closed';
	ok $hashd->running, 'it waits';
	$gatewayd->control('_release');
	my @r = map { $_->response } @c;
	is scalar(grep { $_->{status} == 200 } @r), 20, 'all answered';
	is scalar(grep { ($_->{headers}{connection} // '') eq 'close' } @r), 20, 'with Connection: close';
	is $rpc->wait_for($id)->[3][0], 200, 'the local one too';
	$_->close for @c;
	is $hashd->wait_exit, 0, 'then it leaves';
};

subtest 'lameduck' => sub {
	my $hashd = start(LAMEDUCK => '20s');
	$hashd->signal('TERM');
	wait_for { http('GET', $hashd->url . '/readyz')->{status} == 503 } 'readyz to say so';
	is http('GET', $hashd->url . '/x')->{status}, 200, 'still serving';
	is http('GET', $hashd->url . '/healthz')->{status}, 200, 'and healthy';
	$hashd->signal('TERM');
	is $hashd->wait_exit, 0, 'a second signal ends it';
};

subtest 'clients that ask again and again' => sub {
	my $hashd = start(LAMEDUCK => '20s');
	my @c = map { EG::HTTP->new($hashd->url) } 1 .. 8;
	is $_->request('GET', '/x')->{headers}{connection}, undef, 'a connection that is kept' for $c[0];
	$_->request('GET', '/x') for @c[ 1 .. $#c ];
	$hashd->signal('TERM');
	wait_for { http('GET', $hashd->url . '/readyz')->{status} == 503 } 'readyz to say so';
	my @r = map { $_->request('GET', '/x') } @c;
	is scalar(grep { $_->{status} == 200 && ($_->{headers}{connection} // '') eq 'close' } @r), 8,
		'have left before their connections are closed';
	$hashd->signal('TERM');
	is $hashd->wait_exit, 0, 'then it leaves';
};

subtest 'a client that never ends' => sub {
	my $hashd = start(TERMINATION_GRACE_PERIOD => '200ms');
	$gatewayd->mode(hang => JSON::PP::true, times => 1);
	my $c = EG::HTTP->new($hashd->url);
	my $n = $gatewayd->counters->{requests};
	$c->send(EG::HTTP::format_request('POST', '/v1/embeddings', [], 'never'));
	$gatewayd->wait(requests => $n + 1);
	$hashd->signal('TERM');
	$hashd->wait_exit(exit => qr/^\d+$/);
	ok !$hashd->running, 'does not keep it';
};

done_testing;
